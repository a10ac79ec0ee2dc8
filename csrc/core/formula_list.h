// A list of formula structs, and the one way from a number or a name to a formula.
#pragma once

#include <type_traits>

#include "core/portable.h"

namespace fastmlp {

template <class... Formulas>
struct FormulaList {
  static constexpr int count = sizeof...(Formulas);

  // This list with more behind it.
  template <class... More>
  using With = FormulaList<Formulas..., More...>;

  // Calls f(Formula{}) for the formula at `index`, which is in range.
  template <class F>
  static FASTMLP_FN void visit(int index, F&& f) {
    int i = 0;
    (void)((index == i++ ? (f(Formulas{}), true) : false) || ...);
  }

  template <class Formula>
  static constexpr int index_of() {
    int i = 0, found = -1;
    ((std::is_same_v<Formula, Formulas> ? void(found = i++) : void(i++)), ...);
    return found;
  }
};

}  // namespace fastmlp
