#include "nn/primitives.h"

#include <algorithm>

#include <string>
#include <utility>

#include "core/check.h"

namespace fastmlp::nn {
namespace {

void same_shape(const char* operation, const char* name, const View& got, const View& expected) {
  bool same = got.rank == expected.rank;
  for (int i = 0; same && i < got.rank; ++i) same = got.shape[i] == expected.shape[i];
  if (!same)
    fail(operation, std::string(name) + " of shape " + shape_text(expected), shape_text(got));
}

void vector_of(const char* operation, const char* name, const View& view, std::int64_t size) {
  if (view.rank != 1 || view.shape[0] != size)
    fail(operation, std::string(name) + " of shape (" + std::to_string(size) + ",)",
         shape_text(view));
}

Operand as_row(Operand operand, std::int64_t cols) {
  operand.rows = 1;
  operand.cols = operand.row_stride = cols;
  return operand;
}

// One matrix of a stack in the layout that a matmul takes: unit stride along rows or along columns.
struct Matrix {
  Operand operand;
  bool transposed = false;
};

Matrix matrix(const char* name, const View& view, int buffer) {
  Matrix m;
  m.operand = {buffer, 0, view.dim(1), view.dim(0), view.stride(1), 0, view.dtype};
  if (view.stride(0) == 1 || view.dim(0) <= 1) {
    if (view.dim(1) <= 1) m.operand.row_stride = view.dim(0);
  } else if (view.stride(1) == 1 || view.dim(1) <= 1) {
    m.transposed = true;
    std::swap(m.operand.rows, m.operand.cols);
    m.operand.row_stride = m.operand.rows <= 1 ? m.operand.cols : view.stride(0);
  } else {
    fail("matmul", std::string(name) + " with unit stride in one of its last two dimensions",
         "strides of " + std::to_string(view.stride(1)) + " and " + std::to_string(view.stride(0)));
  }
  if (m.operand.row_stride < m.operand.cols)
    fail("matmul", std::string(name) + " whose rows do not overlap", "overlapping rows");
  return m;
}

// A leading dimension of a batched matmul: its size, and each array's step along it.
struct Leading { std::int64_t size, out, a, b; };

// Leading dimensions, outermost first, joined where one step continues the next.
std::vector<Leading> leading_dimensions(const View& out, const View& a, const View& b) {
  auto step = [&](const View& view, int i) -> std::int64_t {
    const int own = i - (out.rank - view.rank);
    if (own < 0 || view.shape[own] == 1) return 0;
    if (view.shape[own] != out.shape[i])
      fail("matmul", "leading dimensions that broadcast to " + shape_text(out), shape_text(view));
    return view.strides[own];
  };
  std::vector<Leading> dims;
  for (int i = 0; i + 2 < out.rank; ++i) {
    const Leading next{out.shape[i], out.strides[i], step(a, i), step(b, i)};
    if (next.size == 1) continue;
    if (!dims.empty() && dims.back().out == next.out * next.size &&
        dims.back().a == next.a * next.size && dims.back().b == next.b * next.size)
      dims.back() = {dims.back().size * next.size, next.out, next.a, next.b};
    else
      dims.push_back(next);
  }
  return dims;
}

}  // namespace

int Call::number(void* buffer) {
  const auto found = std::find(buffers.begin(), buffers.end(), buffer);
  if (found != buffers.end()) return int(found - buffers.begin());
  buffers.push_back(buffer);
  return int(buffers.size()) - 1;
}

Operand Call::add(const char* operation, const char* name, const View& view) {
  std::int64_t cols = view.rank ? view.dim(0) : 1, rows = 1, row_stride = cols;
  for (int i = 0; i + 1 < view.rank; ++i) rows *= view.shape[i];
  bool fits = view.rank == 0 || cols <= 1 || view.stride(0) == 1;
  // All dimensions before the last must join into rows of one stride.
  std::int64_t expected = -1;
  for (int i = view.rank - 2; i >= 0; --i) {
    if (view.shape[i] == 1) continue;
    if (expected < 0)
      row_stride = view.strides[i];
    else
      fits = fits && view.strides[i] == expected;
    expected = view.strides[i] * view.shape[i];
  }
  if (view.size() && (!fits || row_stride < cols))
    fail(operation, std::string(name) + " in row-major order", "other strides");
  return {number(view.data), 0, rows, cols, row_stride, 0, view.dtype};
}

Call matmul(const View& out, const View& a, const View& b, bool transpose_a, bool transpose_b) {
  if (a.rank < 2 || b.rank < 2 || out.rank < 2)
    fail("matmul", "arrays of at least 2 dimensions", shape_text(a) + " and " + shape_text(b));
  const std::int64_t m = transpose_a ? a.dim(0) : a.dim(1), k = transpose_a ? a.dim(1) : a.dim(0);
  const std::int64_t kb = transpose_b ? b.dim(0) : b.dim(1), n = transpose_b ? b.dim(1) : b.dim(0);
  if (k != kb)
    fail("matmul", "inner dimensions that agree",
         shape_text(a) + (transpose_a ? " transposed" : "") + " and " + shape_text(b) +
             (transpose_b ? " transposed" : ""));
  if (out.dim(1) != m || out.dim(0) != n)
    fail("matmul",
         "out with last dimensions (" + std::to_string(m) + ", " + std::to_string(n) + ")",
         shape_text(out));
  Call call(out.dtype);
  call.buffers = {out.data, a.data, b.data};
  if (out.size() == 0) return call;

  Matrix mo = matrix("out", out, 0), ma = matrix("a", a, 1), mb = matrix("b", b, 2);
  if (mo.transposed) fail("matmul", "out in row-major order", "a transposed array");
  MatMul product{mo.operand, ma.operand, mb.operand, transpose_a != ma.transposed,
                 transpose_b != mb.transposed};

  // The innermost joined dimension is the program's batch; the others become records of their own.
  std::vector<Leading> dims = leading_dimensions(out, a, b);
  Leading batch{1, 0, 0, 0};
  if (!dims.empty()) {
    batch = dims.back();
    dims.pop_back();
  }
  call.program.replicas = batch.size;
  product.out.batch_stride = batch.out;
  product.a.batch_stride = batch.a;
  product.b.batch_stride = batch.b;
  std::int64_t records = 1;
  for (const Leading& dim : dims) records *= dim.size;
  for (std::int64_t i = 0; i < records; ++i) {
    MatMul record = product;
    std::int64_t rest = i;
    for (std::size_t d = dims.size(); d-- > 0;) {
      const std::int64_t at = rest % dims[d].size;
      rest /= dims[d].size;
      record.out.offset += at * dims[d].out;
      record.a.offset += at * dims[d].a;
      record.b.offset += at * dims[d].b;
    }
    call.program.records.push_back(record);
  }
  return call;
}

Call bias_add(const View& out, const View& x, const View& bias) {
  if (x.rank < 1) fail("bias_add", "x of at least 1 dimension", shape_text(x));
  same_shape("bias_add", "out", out, x);
  vector_of("bias_add", "a bias", bias, x.dim(0));
  Call call(out.dtype);
  const Operand o = call.add("bias_add", "out", out), i = call.add("bias_add", "x", x),
                b = call.add("bias_add", "bias", bias);
  call.program.records.push_back(BiasAdd{o, i, as_row(b, x.dim(0))});
  return call;
}

Call activation_forward(const View& out, const View& x, Activation activation) {
  same_shape("activation", "out", out, x);
  Call call(out.dtype);
  const Operand o = call.add("activation", "out", out), i = call.add("activation", "x", x);
  call.program.records.push_back(ActivationForward{o, i, activation});
  return call;
}

Call activation_backward(const View& dx, const View& dy, const View& kept, Activation activation) {
  same_shape("activation backward", "dx", dx, dy);
  same_shape("activation backward", "the kept array", kept, dy);
  Call call(dx.dtype);
  const Operand o = call.add("activation backward", "dx", dx),
                g = call.add("activation backward", "dy", dy),
                k = call.add("activation backward", "the kept array", kept);
  call.program.records.push_back(ActivationBackward{o, g, k, activation});
  return call;
}

namespace {

void check_dense(const char* operation, const View& x, const View& kernel) {
  if (x.rank != 2 || kernel.rank != 2)
    fail(operation, "x (rows, in) and kernel (in, out)",
         shape_text(x) + " and " + shape_text(kernel));
  if (x.dim(0) != kernel.dim(1))
    fail(operation, "x with " + std::to_string(kernel.dim(1)) + " features, as the kernel has rows",
         std::to_string(x.dim(0)));
}

}  // namespace

Call dense_forward(const View& y, const View& x, const View& kernel, const View* bias,
                   Activation activation) {
  check_dense("dense_forward", x, kernel);
  if (bias) vector_of("dense_forward", "a bias", *bias, kernel.dim(0));
  Call call = matmul(y, x, kernel, false, false);
  for (Record& record : call.program.records) {
    auto& product = std::get<MatMul>(record);
    if (bias) product.bias = as_row(call.add("dense_forward", "bias", *bias), kernel.dim(0));
    product.activation = activation;
  }
  return call;
}

Call dense_backward(const View& dx, const View& dkernel, const View& dbias, const View& dz,
                    const View& dy, const View& x, const View& y, const View& kernel,
                    Activation activation) {
  const char* operation = "dense_backward";
  check_dense(operation, x, kernel);
  if (dy.rank != 2 || dy.dim(1) != x.dim(1) || dy.dim(0) != kernel.dim(0))
    fail(operation,
         "dy of shape (" + std::to_string(x.dim(1)) + ", " + std::to_string(kernel.dim(0)) + ")",
         shape_text(dy));
  same_shape(operation, "y", y, dy);
  same_shape(operation, "dx", dx, x);
  same_shape(operation, "dkernel", dkernel, kernel);
  vector_of(operation, "dbias", dbias, kernel.dim(0));
  Call call(dy.dtype);
  const Operand scratch = call.add(operation, "dz", dz);
  call.program.records.push_back(ActivationBackward{scratch, call.add(operation, "dy", dy),
                                                    call.add(operation, "y", y), activation});
  auto append = [&](Call part) {
    for (Record& record : part.program.records) {
      std::visit(
          [&](auto& r) {
            r.each([&](Operand& o) {
              if (o) o.buffer = call.number(part.buffers[std::size_t(o.buffer)]);
            });
          },
          record);
      call.program.records.push_back(record);
    }
  };
  append(matmul(dkernel, x, dz, true, false));
  append(matmul(dx, dz, kernel, false, true));
  const Operand sum = as_row(call.add(operation, "dbias", dbias), kernel.dim(0));
  call.program.records.push_back(ColumnSum{sum, scratch});
  return call;
}

Call softmax(const View& y, const View& x, bool logarithm) {
  if (x.rank < 1) fail("softmax", "x of at least 1 dimension", shape_text(x));
  same_shape("softmax", "out", y, x);
  Call call(y.dtype);
  const Operand o = call.add("softmax", "out", y), i = call.add("softmax", "x", x);
  call.program.records.push_back(Softmax{o, i, logarithm});
  return call;
}

Call softmax_backward(const View& dx, const View& dy, const View& y, bool logarithm) {
  same_shape("softmax_backward", "dx", dx, dy);
  same_shape("softmax_backward", "y", y, dy);
  Call call(dx.dtype);
  const Operand o = call.add("softmax_backward", "dx", dx),
                g = call.add("softmax_backward", "dy", dy),
                k = call.add("softmax_backward", "y", y);
  call.program.records.push_back(SoftmaxBackward{o, g, k, logarithm});
  return call;
}

Call loss(const View& row_loss, const View& gradient, const View& prediction, const View& target,
          const View* weight, int loss, double divisor) {
  const char* operation = "loss";
  if (prediction.rank != 2) fail(operation, "predictions (rows, outputs)", shape_text(prediction));
  same_shape(operation, "a gradient", gradient, prediction);
  vector_of(operation, "row losses", row_loss, prediction.dim(1));
  if (weight) vector_of(operation, "weights", *weight, prediction.dim(1));
  if (target.dtype == DType::int32)
    vector_of(operation, "labels", target, prediction.dim(1));
  else
    same_shape(operation, "targets", target, prediction);
  auto column = [&](Operand operand) {
    operand.rows = operand.cols;
    operand.cols = operand.row_stride = 1;
    return operand;
  };
  Call call(prediction.dtype);
  Loss record;
  record.row_loss = column(call.add(operation, "row losses", row_loss));
  record.gradient = call.add(operation, "a gradient", gradient);
  record.prediction = call.add(operation, "predictions", prediction);
  record.target = call.add(operation, "targets", target);
  if (target.dtype == DType::int32) record.target = column(record.target);
  if (weight) record.weight = column(call.add(operation, "weights", *weight));
  record.loss = loss;
  record.divisor = divisor;
  call.program.records.push_back(record);
  return call;
}

Call update(const View& parameter, const View& gradient, const std::vector<View>& moments,
            const View& state, const View& learning_rate, const Update& rule) {
  const char* operation = "update";
  same_shape(operation, "a gradient", gradient, parameter);
  for (const View& moment : moments) same_shape(operation, "a moment", moment, parameter);
  if (int(moments.size()) != rule.moments())
    fail(operation, std::to_string(rule.moments()) + " moments", std::to_string(moments.size()));
  Call call(parameter.dtype);
  call.buffers.assign(buffer_count, nullptr);
  call.buffers[step_state] = state.data;
  call.buffers[learning_rates] = learning_rate.data;
  ApplyUpdate apply{call.add(operation, "the parameter", parameter),
                    call.add(operation, "the gradient", gradient),
                    {},
                    rule};
  for (std::size_t i = 0; i < moments.size(); ++i)
    apply.moment[i] = call.add(operation, "a moment", moments[i]);
  call.program.records = {BeginUpdate{rule}, apply};
  return call;
}

}  // namespace fastmlp::nn
