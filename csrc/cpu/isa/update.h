// The optimizers' updates, over any run of elements.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// What is updated: rows that lie equally far apart in all arrays. The moments come beside it.
template <class T>
struct Elements {
  T* p;
  const T* g;
  std::int64_t rows, cols, stride, fetch_ahead;
};

// The elements that a vector holds, with those of each moment. All arguments by value, and all
// inlined: what a lambda refers to would be read anew after every store.
template <class T, class Step, class... Moments>
FASTMLP_FN void update_all(Elements<T> all, Step step, Moments*... moment) {
  using V = Vec<T>;
  T* const p = all.p;
  const T* const g = all.g;
  auto vector = [=](std::int64_t i, std::int64_t j, auto n) __attribute__((always_inline)) {
    j += i * all.stride;
#if defined(__AVX512F__)  // a vector is a line; not worth a branch: the line at hand costs nothing
    __builtin_prefetch(p + j + all.fetch_ahead, 1);
#endif
    auto element = [=](V parameter, V gradient, auto... held) __attribute__((always_inline)) {
      step(parameter, gradient, held...).store(p + j, n);
      (held.store(moment + j, n), ...);
    };
    element(V::load(p + j, n), V::load(g + j, n), V::load(moment + j, n)...);
  };
  for_block<T>(all.rows, all.cols, vector);
}

template <class T, bool plain>
FASTMLP_FN void update_as(const Elements<T>& all, T* const moments[3], const Update& rule,
                          const StepState& state) {
  using V = Vec<T>;
  T *m0 = moments[0], *m1 = moments[1], *m2 = moments[2];
  if (rule.rule == UpdateRule::sgd) {
    const SgdStep<V, plain> step(rule, state);
    if (m0)
      update_all(all, step, m0);
    else
      update_all(all, step);
  } else if (rule.rule == UpdateRule::rmsprop) {
    const RmspropStep<V, plain> step(rule, state);
    const V none(0);
    auto without_mean = [=](V w, V d, V& square, V& velocity) __attribute__((always_inline)) {
      V mean = none;
      return step(w, d, square, mean, velocity);
    };
    auto without_velocity = [=](V w, V d, V& square, V& mean) __attribute__((always_inline)) {
      V velocity = none;
      return step(w, d, square, mean, velocity);
    };
    auto alone = [=](V w, V d, V& square) __attribute__((always_inline)) {
      V velocity = none;
      return without_mean(w, d, square, velocity);
    };
    if (m2)
      update_all(all, step, m0, m1, m2);
    else if (!m1)
      update_all(all, alone, m0);
    else if (rule.centered)
      update_all(all, without_velocity, m0, m1);
    else
      update_all(all, without_mean, m0, m1);
  } else {
    const AdamStep<V, plain> step(rule, state);
    if (m2)
      update_all(all, step, m0, m1, m2);
    else
      update_all(all, step, m0, m1);
  }
}

template <class T>
void update(T* p, const T* g, T* const moments[3], std::int64_t rows, std::int64_t cols,
            std::int64_t stride, const Update& rule, const StepState& state,
            std::int64_t fetch_ahead) {
  const Elements<T> all{p, g, rows, cols, stride, fetch_ahead};
  if (takes_plainly(rule))
    update_as<T, true>(all, moments, rule, state);
  else
    update_as<T, false>(all, moments, rule, state);
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
