#include "nn/network.h"

#include <utility>

#include "core/check.h"

namespace fastmlp::nn {

std::vector<Layer> fuse(const std::vector<Layer>& layers) {
  std::vector<Layer> fused;
  for (const Layer& layer : layers) {
    auto* dense = fused.empty() ? nullptr : std::get_if<Dense>(&fused.back());
    const auto* elementwise = std::get_if<Elementwise>(&layer);
    if (dense && elementwise && dense->activation.is_identity())
      dense->activation = elementwise->activation;
    else
      fused.push_back(layer);
  }
  return fused;
}

std::int64_t output_width(const Layer& layer, std::int64_t width) {
  if (const auto* dense = std::get_if<Dense>(&layer)) return dense->units;
  if (const auto* maxout = std::get_if<MaxoutLayer>(&layer)) return width / maxout->pieces;
  if (const auto* host = std::get_if<HostLayer>(&layer)) return host->units;
  return width;
}

Network::Network(std::vector<Layer> layers, std::int64_t features, DType dtype,
                 std::int64_t replicas, Backend& backend)
    : layers_(fuse(layers)),
      features_(features),
      outputs_(features),
      replicas_(replicas),
      dtype_(dtype),
      backend_(backend) {
  for (const Layer& layer : layers_) {
    add_layer(layer);
    outputs_ = output_width(layer, outputs_);
  }
}

void Network::add_layer(const Layer& layer) {
  std::visit(Overloaded{
                 [](const auto&) {},  // learns nothing
                 [&](const Dense& dense) {
                   if (dense.units < 1)
                     fail("Dense", "at least one unit", std::to_string(dense.units));
                   add(dense.layer, "kernel", outputs_, dense.units);
                   if (dense.use_bias) add_vector(dense.layer, "bias", dense.units);
                 },
                 [&](const PreluLayer& prelu) {
                   add_vector(prelu.layer, "alpha", prelu.shared ? 1 : outputs_);
                 },
                 [&](const MaxoutLayer& maxout) {
                   if (maxout.pieces < 1 || outputs_ % maxout.pieces)
                     fail("Maxout", "pieces of equal width",
                          std::to_string(outputs_) + " in " + std::to_string(maxout.pieces));
                 },
                 [&](const Normalisation& norm) {
                   if (norm.affine) {
                     add_vector(norm.layer, "gamma", outputs_);
                     add_vector(norm.layer, "beta", outputs_);
                   }
                   if (!norm.by_row) {
                     add_vector(norm.layer, "running_mean", outputs_, Buffer::state);
                     add_vector(norm.layer, "running_variance", outputs_, Buffer::state);
                   }
                 },
                 [&](const HostLayer& host) {
                   for (const auto& [name, shape] : host.parameters) {
                     if (shape.size() == 2)
                       add(host.layer, name.c_str(), shape[0], shape[1]);
                     else if (shape.size() == 1)
                       add_vector(host.layer, name.c_str(), shape[0]);
                     else
                       fail("Custom", "parameters of one or two dimensions",
                            std::to_string(shape.size()) + " of " + name);
                   }
                 },
             },
             layer);
}

void Network::add(int layer, const char* name, std::int64_t rows, std::int64_t cols) {
  const std::int64_t stride = backend_.leading_dimension(cols, dtype_);
  tensors_.push_back({layer, name, Buffer::parameters, parameters_, rows, cols, stride, false});
  parameters_ += rows * stride;
}

void Network::add_vector(int layer, const char* name, std::int64_t cols, int buffer) {
  std::int64_t& size = buffer == Buffer::state ? state_ : parameters_;
  const std::int64_t stride = backend_.leading_dimension(cols, dtype_);
  tensors_.push_back({layer, name, buffer, size, 1, cols, stride, true});
  size += stride;
}

Operand Network::operand(int layer, const char* name, int buffer) const {
  for (const Tensor& t : tensors_)
    if (t.layer == layer && t.name == name)
      return {buffer, t.offset,     t.rows,
              t.cols, t.row_stride, t.buffer == Buffer::state ? state_ : parameters_,
              dtype_};
  return {};
}

}  // namespace fastmlp::nn
