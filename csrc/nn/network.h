// A network's layout: where each layer's parameters lie in the flat arrays.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "nn/layers.h"

namespace fastmlp::nn {

// One parameter of one layer in a replica's slice of a flat array; padding lies between rows.
struct Tensor {
  int layer;
  std::string name;
  int buffer;  // parameters or state
  std::int64_t offset, rows, cols, row_stride;
  bool is_vector;
};

class Network {
 public:
  Network(std::vector<Layer> layers, std::int64_t features, DType dtype, std::int64_t replicas,
          Backend& backend);

  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  std::int64_t features() const { return features_; }
  std::int64_t outputs() const { return outputs_; }
  std::int64_t parameters() const { return parameters_; }
  std::int64_t state() const { return state_; }
  std::int64_t replicas() const { return replicas_; }
  DType dtype() const { return dtype_; }
  Backend& backend() const { return backend_; }

  // A layer's tensor as an operand in `buffer` (parameters, gradients or a moment; or state).
  Operand operand(int layer, const char* name, int buffer) const;

 private:
  void add_layer(const Layer& layer);
  void add(int layer, const char* name, std::int64_t rows, std::int64_t cols);
  void add_vector(int layer, const char* name, std::int64_t cols, int buffer = Buffer::parameters);

  std::vector<Layer> layers_;
  std::vector<Tensor> tensors_;
  std::int64_t features_, outputs_, parameters_ = 0, state_ = 0, replicas_;
  DType dtype_;
  Backend& backend_;
};

}  // namespace fastmlp::nn
