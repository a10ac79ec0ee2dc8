// The machine: backends, threads, configuration, random numbers, and the lists of formulas.
#include "cpu/machine.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/capsule.h"
#include "core/check.h"
#include "core/random.h"
#include "cpu/backend.h"

namespace fastmlp::bindings {
namespace {

template <class T, class F>
void fill(const View& out, F&& pair) {
  T* data = static_cast<T*>(out.data);
  const std::int64_t n = out.size();
  for (std::int64_t i = 0; i < n; i += 2) {
    double a, b;
    pair(std::uint64_t(i) / 2, a, b);
    data[i] = T(a);
    if (i + 1 < n) data[i + 1] = T(b);
  }
}

// Element 2i and 2i + 1 come from the generator's block i.
template <class Pair>
void random(py::array out, std::uint64_t seed, std::uint64_t stream, Pair pair) {
  const View view = writable_view(out);
  auto from_block = [&](std::uint64_t block, double& a, double& b) {
    pair(Philox(seed, block, random_stream(Purpose::initial, stream)), a, b);
  };
  if (view.dtype == DType::int32) fail("random", "float32 or float64", "int32");
  if (view.dtype == DType::float64)
    fill<double>(view, from_block);
  else
    fill<float>(view, from_block);
}

py::dict activations() {
  py::dict result;
  for (int i = 0; i < Activations::count; ++i) {
    Activations::visit(i, [&](auto kind) {
      using Kind = decltype(kind);
      py::dict info;
      info["from_output"] = Kind::from_output;
      info["parameter"] = Kind::parameter ? py::object(py::str(Kind::parameter)) : py::none();
      info["default"] = Kind::default_parameter;
      info["least"] = Kind::least_parameter;
      result[Kind::name] = info;
    });
  }
  return result;
}

py::list losses() {
  py::list result;
  for (int i = 0; i < Losses::count; ++i)
    Losses::visit(i, [&](auto loss) { result.append(decltype(loss)::name); });
  return result;
}

py::list precisions(const py::capsule& backend) {
  py::list result;
  for (const Precision precision : backend_of(backend).precisions()) result.append(name(precision));
  return result;
}

py::dict show_config() {
  const cpu::BlasInfo& blas = cpu::blas_info();
  py::dict library;
  library["library"] = blas.library;
  library["version"] = blas.version;
  library["core"] = blas.core;
  library["origin"] = blas.origin;
  library["warning"] = blas.warning;
  py::dict config;
  config["version"] = FASTMLP_VERSION;
  config["instruction_set"] = cpu::instruction_set();
  config["matmul"] = cpu::matmul_path();
  config["bfloat16"] = cpu::bfloat16_path();
  config["blas"] = library;
  config["threads"] = cpu::num_threads();
  return config;
}

}  // namespace

void add_machine(py::module_& module) {
  PYBIND11_NUMPY_DTYPE(StepState, seed, epoch, forward, step, row, schedule_index, schedule_length,
                       sums, penalty, not_finite, learning_rate, step_size, epsilon,
                       gradient_scale);
  module.attr("step_state_dtype") = py::dtype::of<StepState>();
  // With a function for the stream it stands in for a device that has streams, in tests.
  module.def(
      "cpu",
      [](const py::object& stream) { return to_capsule(cpu::backend(), py::none(), stream); },
      py::arg("current_stream") = py::none());
  module.def("check_backend", [](const py::capsule& capsule) { backend_of(capsule); });
  module.def("precisions", precisions);
  module.def("activations", activations);
  module.def("losses", losses);
  module.def("show_config", show_config);
  module.def("set_num_threads", cpu::set_num_threads);
  module.def("get_num_threads", cpu::num_threads);
  module.def("quota_cpus", cpu::quota_cpus);
  module.def("fma_peak", [](const std::string& dtype) {
    if (dtype != "float32" && dtype != "float64") fail("fma_peak", "float32 or float64", dtype);
    return dtype == "float32" ? cpu::fma_peak<float>() : cpu::fma_peak<double>();
  });
  module.def("random_uniform", [](py::array out, std::uint64_t seed, std::uint64_t stream) {
    random(out, seed, stream, [](const Philox& r, double& a, double& b) { uniform_pair(r, a, b); });
  });
  module.def("random_normal", [](py::array out, std::uint64_t seed, std::uint64_t stream) {
    random(out, seed, stream, [](const Philox& r, double& a, double& b) { normal_pair(r, a, b); });
  });
  module.def("permutation",
             [](py::array_t<std::int64_t> out, std::uint64_t seed, std::uint64_t epoch) {
               const Permutation order(std::uint64_t(out.size()), seed, epoch);
               std::int64_t* data = out.mutable_data();
               for (std::int64_t i = 0; i < out.size(); ++i)
                 data[i] = std::int64_t(order(std::uint64_t(i)));
             });
}

}  // namespace fastmlp::bindings
