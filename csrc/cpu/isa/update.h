// The optimizers' updates, over any run of elements.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

template <class T>
void update(T* p, const T* g, T* const moments[3], std::int64_t size, const Update& rule,
            const StepState& state) {
  using V = Vec<T>;
  T *m = moments[0], *v = moments[1], *v_max = moments[2];
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
