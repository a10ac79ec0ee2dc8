// What a record does beside reading its operands: what a backend needs to know to have records wait
// for each other no more than they must.
#pragma once

#include <variant>

#include "core/program.h"

namespace fastmlp {

struct Effects {
  int outputs;                     // how many of its operands it writes, the first of `each`
  unsigned reads = 0, writes = 0;  // parts of StepState

  bool on_state() const { return reads || writes; }
};

struct EffectsOf {
  // What different records write of the state.
  enum : unsigned { place = 1, pass = 2, sums = 4, derived = 8 };

  Effects operator()(const Gather&) const { return {3, place}; }
  Effects operator()(const Copy&) const { return {1}; }
  Effects operator()(const MatMul&) const { return {3}; }
  Effects operator()(const ColumnSum&) const { return {1}; }
  Effects operator()(const BiasAdd&) const { return {1}; }
  Effects operator()(const ActivationForward&) const { return {1}; }
  Effects operator()(const ActivationBackward&) const { return {1}; }
  Effects operator()(const Softmax&) const { return {1}; }
  Effects operator()(const SoftmaxBackward&) const { return {1}; }
  Effects operator()(const Prelu&) const { return {1}; }
  Effects operator()(const PreluBackward&) const { return {1}; }
  Effects operator()(const PreluSlope&) const { return {1}; }
  Effects operator()(const Maxout&) const { return {1}; }
  Effects operator()(const MaxoutBackward&) const { return {1}; }
  Effects operator()(const Statistics&) const { return {2}; }
  Effects operator()(const Normalise&) const { return {1}; }
  Effects operator()(const NormaliseSums&) const { return {2}; }
  Effects operator()(const NormaliseBackward&) const { return {1}; }
  Effects operator()(const MoveStatistics&) const { return {2}; }
  Effects operator()(const Dropout&) const { return {1, pass}; }
  Effects operator()(const Loss&) const { return {2}; }
  Effects operator()(const Metric&) const { return {1}; }
  Effects operator()(const Accumulate&) const { return {0, 0, sums}; }
  Effects operator()(const BeginForward&) const { return {0, 0, pass}; }
  Effects operator()(const BeginUpdate&) const { return {0, place, derived}; }
  Effects operator()(const ClipNorm&) const { return {1, 0, derived}; }
  Effects operator()(const ApplyUpdate&) const { return {4, derived}; }
  Effects operator()(const EndStep&) const { return {0, 0, place}; }
  Effects operator()(const Penalize&) const { return {2, 0, sums}; }
};

inline Effects effects_of(const Record& record) { return std::visit(EffectsOf{}, record); }

}  // namespace fastmlp
