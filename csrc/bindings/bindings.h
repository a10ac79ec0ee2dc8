// The parts of the module, each of which adds its names.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "core/activation.h"
#include "core/loss.h"

namespace fastmlp::bindings {

void add_machine(pybind11::module_& module);
void add_kernels(pybind11::module_& module);
void add_network(pybind11::module_& module);
void add_inference(pybind11::module_& module);  // after the networks

// The place of a formula in its list, by name.
template <class List>
int formula_named(const char* family, const std::string& name) {
  for (int i = 0; i < List::count; ++i) {
    bool found = false;
    List::visit(i, [&](auto formula) { found = name == decltype(formula)::name; });
    if (found) return i;
  }
  throw pybind11::value_error(std::string(family) + ": unknown name '" + name + "'");
}

inline Activation activation_named(const std::string& name, double parameter) {
  return {formula_named<Activations>("activation", name), parameter};
}

inline LossFunction loss_named(const std::string& name, double parameter, bool sum) {
  return {formula_named<Losses>("loss", name), parameter, sum};
}

}  // namespace fastmlp::bindings
