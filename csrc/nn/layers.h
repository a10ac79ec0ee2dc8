// The layers as the native core sees them: what each adds to the forward and to the backward
// program.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "core/activation.h"
#include "core/penalty.h"

namespace fastmlp::nn {

// y = activation(x kernel + bias). A Dense followed by an elementwise activation is one such layer.
struct Dense {
  int layer = 0;  // where in the user's network it stands
  std::int64_t units = 0;
  bool use_bias = true;
  Activation activation;
  Penalty penalty;  // on the kernel
};

// An elementwise activation that does not follow a Dense.
struct Elementwise { Activation activation; };

struct SoftmaxLayer {};

struct DropoutLayer {
  int layer = 0;
  double rate = 0;
};

using Layer = std::variant<Dense, Elementwise, SoftmaxLayer, DropoutLayer>;

// Joins every Dense with the activation that follows it.
std::vector<Layer> fuse(const std::vector<Layer>& layers);

}  // namespace fastmlp::nn
