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

Network::Network(std::vector<Layer> layers, std::int64_t features, DType dtype,
                 std::int64_t replicas, Backend& backend)
    : layers_(fuse(layers)),
      features_(features),
      outputs_(features),
      replicas_(replicas),
      dtype_(dtype),
      backend_(backend) {
  for (const Layer& layer : layers_) {
    const auto* dense = std::get_if<Dense>(&layer);
    if (!dense) continue;
    if (dense->units < 1) fail("Dense", "at least one unit", std::to_string(dense->units));
    const std::int64_t stride = backend.leading_dimension(dense->units, dtype);
    tensors_.push_back({dense->layer, "kernel", Buffer::parameters, parameters_, outputs_,
                        dense->units, stride, false});
    parameters_ += outputs_ * stride;
    if (dense->use_bias) {  // the block's last row
      tensors_.push_back(
          {dense->layer, "bias", Buffer::parameters, parameters_, 1, dense->units, stride, true});
      parameters_ += stride;
    }
    outputs_ = dense->units;
  }
}

Operand Network::operand(int layer, const char* name, int buffer) const {
  for (const Tensor& t : tensors_)
    if (t.layer == layer && t.name == name)
      return {buffer, t.offset, t.rows, t.cols, t.row_stride, parameters_, dtype_};
  return {};
}

}  // namespace fastmlp::nn
