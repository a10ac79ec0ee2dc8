// All optimizer updates, each written once: hyper-parameters, what a step derives from them, and
// the element's update as a template over a value type.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/math.h"
#include "core/portable.h"
#include "core/step_state.h"

namespace fastmlp {

enum class UpdateRule : std::uint8_t { sgd, adam, rmsprop };

// An optimizer as data. A rule ignores what belongs to others.
struct Update {
  UpdateRule rule = UpdateRule::sgd;
  double weight_decay = 0;
  bool decoupled = false;  // decay the parameter itself (AdamW) instead of adding to the gradient
  double clip_norm = 0;    // 0: off
  double clip_value = 0;   // 0: off
  double momentum = 0;
  bool nesterov = false;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  bool amsgrad = false;
  double alpha = 0.99;
  bool centered = false;

  // How many arrays of the parameters' shape the rule keeps. RMSprop's are the mean square, then
  // the mean where it is centered, then the velocity where there is momentum.
  int moments() const {
    const int velocity = momentum != 0 ? 1 : 0;
    if (rule == UpdateRule::sgd) return velocity;
    return rule == UpdateRule::adam ? (amsgrad ? 3 : 2) : 1 + int(centered) + velocity;
  }
};

// 1 - beta^t. Since log(beta) <= beta - 1, the power is below exp(-40) where it is not computed,
// and lost in rounding: a small network would feel it at every step of its life.
FASTMLP_FN double one_minus_power(double beta, double t) {
  return t * (1 - beta) > 40 ? 1 : 1 - std::pow(beta, t);
}

// Fills in what this step's update needs. Powers are taken in double: 1 - beta2 in float32 is off
// by 1e-5 of itself.
FASTMLP_FN void begin_update(const Update& update, double learning_rate, StepState& state) {
  state.learning_rate = learning_rate;
  state.gradient_scale = 1;
  if (update.rule == UpdateRule::adam) {
    const double t = double(state.step + 1);
    const double correction1 = one_minus_power(update.beta1, t);
    const double correction2 = std::sqrt(one_minus_power(update.beta2, t));
    state.step_size = learning_rate * correction2 / correction1;
    state.epsilon = update.epsilon * correction2;
  }
}

// Whether a rule takes gradients and parameters as they are: nothing is clipped or decays. A step
// that knows this when it is compiled asks for nothing of it at each element.
FASTMLP_FN bool takes_plainly(const Update& u) {
  return u.clip_norm == 0 && u.clip_value == 0 && u.weight_decay == 0;
}

// The gradient as the rule sees it: clipped, with L2 decay.
template <class T, bool plain>
struct Preparation {
  T scale, limit, l2;
  bool clip_norm, clip_value, decay;

  FASTMLP_FN Preparation(const Update& u, const StepState& s)
      : scale(s.gradient_scale),
        limit(u.clip_value),
        l2(u.weight_decay),
        clip_norm(u.clip_norm != 0),
        clip_value(u.clip_value != 0),
        decay(u.weight_decay != 0 && !u.decoupled) {}

  FASTMLP_FN T operator()(T p, T g) const {
    if (plain) return g;
    if (clip_norm) g = g * scale;
    if (clip_value) g = select(g > limit, limit, select(g < T(0) - limit, T(0) - limit, g));
    if (decay) g = fma(l2, p, g);
    return g;
  }
};

// v = momentum v + g;  p -= learning_rate (nesterov ? g + momentum v : v). Sutskever et al. 2013,
// in PyTorch's form.
template <class T, bool plain = false>
struct SgdStep {
  Preparation<T, plain> prepare;
  T learning_rate, momentum, keep;
  bool nesterov, decoupled;

  FASTMLP_FN SgdStep(const Update& u, const StepState& s)
      : prepare(u, s),
        learning_rate(s.learning_rate),
        momentum(u.momentum),
        keep(1 - s.learning_rate * u.weight_decay),
        nesterov(u.nesterov),
        decoupled(!plain && u.decoupled && u.weight_decay != 0) {}

  FASTMLP_FN T operator()(T p, T g) const {
    g = prepare(p, g);
    if (decoupled) p = p * keep;
    return fma(T(0) - learning_rate, g, p);
  }
  FASTMLP_FN T operator()(T p, T g, T& v) const {
    g = prepare(p, g);
    if (decoupled) p = p * keep;
    v = fma(momentum, v, g);
    return fma(T(0) - learning_rate, nesterov ? fma(momentum, v, g) : v, p);
  }
};

// Kingma and Ba 2015, arXiv:1412.6980, in its section 2's efficient order: the bias corrections are
// in step_size and epsilon. Decoupled decay: Loshchilov and Hutter 2019, arXiv:1711.05101. The
// running maximum: Reddi, Kale, Kumar 2018, arXiv:1904.09237.
template <class T, bool plain = false>
struct AdamStep {
  Preparation<T, plain> prepare;
  T step_size, epsilon, keep, one_minus_beta1, beta2, one_minus_beta2;
  bool decoupled;

  FASTMLP_FN AdamStep(const Update& u, const StepState& s)
      : prepare(u, s),
        step_size(s.step_size),
        epsilon(s.epsilon),
        keep(1 - s.learning_rate * u.weight_decay),
        one_minus_beta1(1 - u.beta1),
        beta2(u.beta2),
        one_minus_beta2(1 - u.beta2),
        decoupled(!plain && u.decoupled && u.weight_decay != 0) {}

  FASTMLP_FN void moments(T& p, T g, T& m, T& v) const {
    g = prepare(p, g);
    if (decoupled) p = p * keep;
    m = fma(one_minus_beta1, g - m, m);
    v = fma(one_minus_beta2 * g, g, beta2 * v);
  }
  FASTMLP_FN T descend(T p, T m, T v) const {
    return fma(-(step_size * m), reciprocal(sqrt(v) + epsilon), p);
  }
  FASTMLP_FN T operator()(T p, T g, T& m, T& v) const {
    moments(p, g, m, v);
    return descend(p, m, v);
  }
  FASTMLP_FN T operator()(T p, T g, T& m, T& v, T& v_max) const {
    moments(p, g, m, v);
    v_max = select(v_max > v, v_max, v);
    return descend(p, m, v_max);
  }
};

// Hinton, Tieleman 2012 (Coursera, lecture 6.5), in PyTorch's form; centered by the mean: Graves
// 2013, arXiv:1308.0850.
template <class T, bool plain = false>
struct RmspropStep {
  Preparation<T, plain> prepare;
  T learning_rate, momentum, epsilon, alpha, one_minus_alpha;
  bool centered, accelerated;

  FASTMLP_FN RmspropStep(const Update& u, const StepState& s)
      : prepare(u, s),
        learning_rate(s.learning_rate),
        momentum(u.momentum),
        epsilon(u.epsilon),
        alpha(u.alpha),
        one_minus_alpha(1 - u.alpha),
        centered(u.centered),
        accelerated(u.momentum != 0) {}

  // Of `mean` and `velocity` those that the rule has are read and written.
  FASTMLP_FN T operator()(T p, T g, T& square, T& mean, T& velocity) const {
    g = prepare(p, g);
    square = fma(one_minus_alpha * g, g, alpha * square);
    T variance = square;
    if (centered) {
      mean = fma(one_minus_alpha, g - mean, mean);
      variance = at_least(fma(-mean, mean, square), T(0));  // rounding may leave it below
    }
    T step = g * reciprocal(sqrt(variance) + epsilon);
    if (accelerated) step = velocity = fma(momentum, velocity, step);
    return fma(T(0) - learning_rate, step, p);
  }
};

}  // namespace fastmlp
