// The kernels of `fm.kernels` as programs of one record or a few, with the checks on their shapes.
#pragma once

#include <vector>

#include "core/program.h"
#include "core/view.h"

namespace fastmlp::nn {

// A program together with the arrays that it works on.
struct Call {
  Program program;
  std::vector<void*> buffers;

  explicit Call(DType dtype) { program.dtype = dtype; }
  // The number of a buffer; one array has one number, so that a backend sees where records meet.
  int number(void* buffer);
  // An array of any rank as an operand: the last dimension is columns, the one before it rows.
  Operand add(const char* operation, const char* name, const View& view);
};

Call matmul(const View& out, const View& a, const View& b, bool transpose_a, bool transpose_b);
Call bias_add(const View& out, const View& x, const View& bias);
Call activation_forward(const View& out, const View& x, Activation activation);
Call activation_backward(const View& dx, const View& dy, const View& kept, Activation activation);
Call dense_forward(const View& y, const View& x, const View& kernel, const View* bias,
                   Activation activation);
// dz is scratch of dy's shape.
Call dense_backward(const View& dx, const View& dkernel, const View& dbias, const View& dz,
                    const View& dy, const View& x, const View& y, const View& kernel,
                    Activation activation);
Call softmax(const View& y, const View& x, bool logarithm);
Call softmax_backward(const View& dx, const View& dy, const View& y, bool logarithm);
Call loss(const View& row_loss, const View& gradient, const View& prediction, const View& target,
          const View* weight, int loss, double divisor);
// `state` and `learning_rate` are one StepState and one double, on the device.
Call update(const View& parameter, const View& gradient, const std::vector<View>& moments,
            const View& state, const View& learning_rate, const Update& rule);

}  // namespace fastmlp::nn
