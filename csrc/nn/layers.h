// The layers as the native core sees them: what each adds to the forward and to the backward
// program.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/activation.h"

namespace fastmlp::nn {

// y = activation(x kernel + bias). A Dense followed by an elementwise activation is one such layer.
struct Dense {
  int layer = 0;  // where in the user's network it stands
  std::int64_t units = 0;
  bool use_bias = true;
  Activation activation;
};

// An elementwise activation that does not follow a Dense.
struct Elementwise { Activation activation; };

struct SoftmaxLayer { bool logarithm = false; };

struct PreluLayer {
  int layer = 0;
  bool shared = false;  // one slope for all units
};

// The largest of so many pieces, of which the layer before has one behind the other.
struct MaxoutLayer { std::int64_t pieces = 1; };

// Normalises each feature over the batch or, `by_row`, each row over its features.
struct Normalisation {
  int layer = 0;
  bool by_row = false;
  bool affine = true;
  double epsilon = 0;
  double momentum = 0;  // of a batch's running statistics
};

// A layer in Python: the host computes it, between two programs.
struct HostLayer {
  int layer = 0;
  std::int64_t units = 0;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> parameters;  // name and shape
};

struct DropoutLayer {
  int layer = 0;
  double rate = 0;
};

using Layer = std::variant<Dense, Elementwise, SoftmaxLayer, PreluLayer, MaxoutLayer, Normalisation,
                           DropoutLayer, HostLayer>;

// Joins every Dense with the activation that follows it.
std::vector<Layer> fuse(const std::vector<Layer>& layers);

// How many columns come out of a layer into which `width` go.
std::int64_t output_width(const Layer& layer, std::int64_t width);

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

}  // namespace fastmlp::nn
