// From layers to programs: each section of a network's work as a list of records, and the layout of
// the one workspace that the sections of a plan share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/program.h"
#include "nn/network.h"

namespace fastmlp::nn {

enum class Section {
  infer,     // input -> output, keeping nothing
  forward,   // input -> output, keeping what backward needs
  backward,  // output_gradient -> gradients and input_gradient
  train,     // whole steps: gather, forward, loss, metrics, backward, update
  evaluate,  // input and target -> the sums of loss and metrics
  update,    // gradients -> parameters
  penalty    // parameters -> StepState.penalty, as of one row
};

struct PlanOptions {
  Section section = Section::infer;
  std::int64_t rows = 1;  // of the largest batch
  Precision precision = Precision::full;
  bool training = false;  // dropout is active, normalisation takes the batch's statistics
  LossFunction loss;      // of sections with a loss
  bool labels = false;    // targets are labels (int32), not a row of values each
  bool weighted = false;  // a weight for each row is given
  bool shuffle = false;
  std::vector<MetricKind> metrics;
  std::optional<Update> update;
};

// A layer of the host's own, between two programs: out = layer(in); or backward, out = the
// derivative by `in` and `gradient` that by `out` of the forward pass, which `y` is.
struct HostCall {
  int layer = 0;
  bool training = false;
  Operand out, in, gradient, y;  // the last two only backward

  template <class F>
  void each(F f) {
    f(out), f(in), f(gradient), f(y);
  }
};

struct Lowered {
  std::vector<Program> programs;  // one more than there are calls between them
  std::vector<HostCall> calls;
  std::int64_t workspace = 0;  // elements of one replica
};

Lowered lower(const Network& network, const PlanOptions& options);

// What a loss asks of the network's ending: true where a final softmax or sigmoid belongs to the
// loss, which then works on the logits before it. Throws where the two do not go together.
bool loss_includes_ending(const Network& network, int loss);

}  // namespace fastmlp::nn
