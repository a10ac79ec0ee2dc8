// The optimizers' updates, over any run of elements.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

template <class T>
void rmsprop(T* p, const T* g, T* const moments[3], std::int64_t size, const Update& rule,
             const StepState& state) {
  using V = Vec<T>;
  const RmspropStep<V> step(rule, state);
  T* const square = moments[0];
  T* const mean = step.centered ? moments[1] : nullptr;
  T* const velocity = step.accelerated ? moments[step.centered ? 2 : 1] : nullptr;
  for_columns<T>(size, [&](std::int64_t j, auto n) {
    V s = V::load(square + j, n), m(0), v(0);
    if (mean) m = V::load(mean + j, n);
    if (velocity) v = V::load(velocity + j, n);
    step(V::load(p + j, n), V::load(g + j, n), s, m, v).store(p + j, n);
    s.store(square + j, n);
    if (mean) m.store(mean + j, n);
    if (velocity) v.store(velocity + j, n);
  });
}

template <class T>
void update(T* p, const T* g, T* const moments[3], std::int64_t size, const Update& rule,
            const StepState& state) {
  using V = Vec<T>;
  T *m = moments[0], *v = moments[1], *v_max = moments[2];
  if (rule.rule == UpdateRule::rmsprop) return rmsprop(p, g, moments, size, rule, state);
  if (rule.rule == UpdateRule::sgd) {
    const SgdStep<V> step(rule, state);
    for_columns<T>(size, [&](std::int64_t j, auto n) {
      const V gradient = V::load(g + j, n);
      V parameter = V::load(p + j, n);
      if (m) {
        V velocity = V::load(m + j, n);
        parameter = step(parameter, gradient, velocity);
        velocity.store(m + j, n);
      } else {
        parameter = step(parameter, gradient);
      }
      parameter.store(p + j, n);
    });
  } else {
    const AdamStep<V> step(rule, state);
    for_columns<T>(size, [&](std::int64_t j, auto n) {
      const V gradient = V::load(g + j, n);
      V parameter = V::load(p + j, n), first = V::load(m + j, n), second = V::load(v + j, n);
      if (v_max) {
        V largest = V::load(v_max + j, n);
        parameter = step(parameter, gradient, first, second, largest);
        largest.store(v_max + j, n);
      } else {
        parameter = step(parameter, gradient, first, second);
      }
      parameter.store(p + j, n);
      first.store(m + j, n);
      second.store(v + j, n);
    });
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
