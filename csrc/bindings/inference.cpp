// model(x) on the CPU with no Python on the way.
//
// FastCall is the base class of a model and has `__call__` as a slot in C: pybind11's own
// dispatcher and a Python function before it would cost as much as a small network.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "nn/lowering.h"
#include "nn/network.h"

namespace fastmlp::bindings {
namespace {

using Numpy = py::detail::npy_api;

// A thread's own scratch memory for inference; grows and stays.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  void* at_least(std::size_t bytes) {
    if (bytes > bytes_) {
      std::free(data_);
      bytes_ = (bytes + 4095) / 4096 * 4096;
      data_ = std::aligned_alloc(64, bytes_);
      if (!data_) bytes_ = 0, throw std::bad_alloc();
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// A trained network for arrays that have the model's dtype, are contiguous, and are rows of the
// right shape, or one such row. Anything else gets null, and the caller converts or complains.
class Inference {
 public:
  Inference(std::shared_ptr<nn::Network> network, py::array parameters, py::array state,
            std::vector<Py_intptr_t> row_shape)
      : network_(std::move(network)),
        parameters_(std::move(parameters)),
        state_(std::move(state)),
        row_shape_(std::move(row_shape)),
        dtype_(network_->dtype() == DType::float64 ? py::dtype::of<double>()
                                                   : py::dtype::of<float>()),
        features_(network_->features()),
        outputs_(network_->outputs()) {}

  py::object call(py::handle given, py::handle out) {
    const auto* x = array(given);
    const int row_rank = int(row_shape_.size());
    if (!x || x->nd < row_rank || x->nd > row_rank + 1 ||
        !std::equal(row_shape_.begin(), row_shape_.end(), x->dimensions + x->nd - row_rank))
      return {};
    const int rank = 1 + x->nd - row_rank;  // of the result: a single row is a vector
    const Py_intptr_t rows = rank == 2 ? x->dimensions[0] : 1;
    py::object result;
    if (out.is_none()) {
      const Py_intptr_t shape[2] = {rank == 2 ? rows : outputs_, outputs_};
      result = py::reinterpret_steal<py::object>(
          numpy_.PyArray_NewFromDescr_(numpy_.PyArray_Type_, py::dtype(dtype_).release().ptr(),
                                       rank, shape, nullptr, nullptr, 0, nullptr));
      if (!result) throw py::error_already_set();
    } else {
      const auto* y = array(out);
      if (!y || !(y->flags & Numpy::NPY_ARRAY_WRITEABLE_) || y->nd != rank ||
          y->dimensions[rank - 1] != outputs_ || (rank == 2 && y->dimensions[0] != rows) ||
          overlap(x->data, y->data, rows))
        return {};
      result = py::reinterpret_borrow<py::object>(out);
    }
    if (rows > 0) run(x->data, py::detail::array_proxy(result.ptr())->data, rows);
    return result;
  }

 private:
  // Plans are made for 1, 2, 4, ... rows, on first use, while the GIL is held.
  struct Entry {
    std::unique_ptr<Executable> executable;
    std::size_t workspace_bytes = 0;
  };

  // The object as an array that programs can read as it lies in memory; null where it is none.
  const py::detail::PyArray_Proxy* array(py::handle object) const {
    if (!numpy_.PyArray_Check_(object.ptr())) return nullptr;
    const auto* proxy = py::detail::array_proxy(object.ptr());
    constexpr int plain = Numpy::NPY_ARRAY_C_CONTIGUOUS_ | Numpy::NPY_ARRAY_ALIGNED_;
    const bool same_type =
        proxy->descr == dtype_.ptr() || numpy_.PyArray_EquivTypes_(proxy->descr, dtype_.ptr());
    return same_type && (proxy->flags & plain) == plain ? proxy : nullptr;
  }

  bool overlap(const char* x, const char* y, std::int64_t rows) const {
    const std::int64_t bytes = rows * size_of(network_->dtype());
    return x < y + bytes * outputs_ && y < x + bytes * features_;
  }

  void run(char* x, char* y, std::int64_t rows) {
    const Entry& entry = entry_for(rows);
    static thread_local Scratch scratch;
    void* buffers[buffer_count] = {};
    buffers[parameters] = py::detail::array_proxy(parameters_.ptr())->data;
    buffers[state] = py::detail::array_proxy(state_.ptr())->data;
    buffers[workspace] = scratch.at_least(entry.workspace_bytes);
    buffers[input] = x;
    buffers[output] = y;
    Launch launch;
    launch.buffers = buffers;
    launch.rows = rows;
    // Letting other threads run is worth its cost for calls of some 20 microseconds and more.
    if (double(rows) * double(network_->parameters()) < 4e5) {
      entry.executable->run(launch);
    } else {
      py::gil_scoped_release release;
      entry.executable->run(launch);
    }
  }

  const Entry& entry_for(std::int64_t rows) {
    std::size_t power = 0;
    while ((std::int64_t(1) << power) < rows) ++power;
    if (entries_.size() <= power) entries_.resize(power + 1);
    auto& entry = entries_[power];
    if (!entry) {
      nn::PlanOptions options;
      options.rows = std::int64_t(1) << power;
      nn::Lowered lowered = nn::lower(*network_, options);
      auto made = std::make_unique<Entry>();
      made->workspace_bytes = std::size_t(lowered.workspace * size_of(network_->dtype()));
      if (!lowered.calls.empty()) throw std::logic_error("inference: the host has layers in it");
      made->executable = network_->backend().compile(std::move(lowered.programs.front()));
      entry = std::move(made);
    }
    return *entry;
  }

  const Numpy& numpy_ = Numpy::get();
  std::shared_ptr<nn::Network> network_;
  py::array parameters_, state_;
  std::vector<Py_intptr_t> row_shape_;
  py::dtype dtype_;
  Py_intptr_t features_, outputs_;
  std::vector<std::unique_ptr<Entry>> entries_;
};

// ---- the base class, in Python's own C interface

struct FastCall {
  PyObject_HEAD PyObject* object;  // the Inference, or null
  Inference* inference;            // what is in it
};

FastCall* fast_call(PyObject* self) { return reinterpret_cast<FastCall*>(self); }

// The result, or null where this call has to go the ordinary way. That way also meets whatever was
// thrown here, and says it.
PyObject* quickly(PyObject* self, PyObject* args, PyObject* kwargs) noexcept {
  static PyObject* const name_of_out = PyUnicode_InternFromString("out");
  if (!fast_call(self)->object || PyTuple_GET_SIZE(args) != 1) return nullptr;
  PyObject* out = Py_None;
  if (kwargs && PyDict_GET_SIZE(kwargs) > 0) {
    out = PyDict_GET_SIZE(kwargs) == 1 ? PyDict_GetItem(kwargs, name_of_out) : nullptr;
    if (!out) return nullptr;
  }
  try {
    // It stays alive if another thread builds the model anew meanwhile.
    const auto alive = py::reinterpret_borrow<py::object>(fast_call(self)->object);
    return fast_call(self)->inference->call(PyTuple_GET_ITEM(args, 0), out).release().ptr();
  } catch (...) {
    return nullptr;
  }
}

PyObject* call(PyObject* self, PyObject* args, PyObject* kwargs) {
  static PyObject* const ordinary = PyUnicode_InternFromString("_call");
  if (PyObject* result = quickly(self, args, kwargs)) return result;
  PyObject* method = PyObject_GetAttr(self, ordinary);
  if (!method) return nullptr;
  PyObject* result = PyObject_Call(method, args, kwargs);
  Py_DECREF(method);
  return result;
}

PyObject* get_inference(PyObject* self, void*) {
  PyObject* object = fast_call(self)->object;
  return Py_NewRef(object ? object : Py_None);
}

int set_inference(PyObject* self, PyObject* value, void*) {
  Inference* inference = nullptr;
  if (value && value != Py_None) {
    if (!py::isinstance<Inference>(value)) {
      PyErr_SetString(PyExc_TypeError, "_inference: needs an Inference or None");
      return -1;
    }
    inference = py::cast<Inference*>(py::handle(value));
  }
  PyObject* before = fast_call(self)->object;
  fast_call(self)->object = inference ? Py_NewRef(value) : nullptr;
  fast_call(self)->inference = inference;
  Py_XDECREF(before);
  return 0;
}

void deallocate(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  Py_XDECREF(fast_call(self)->object);
  type->tp_free(self);
  Py_DECREF(type);
}

py::object fast_call_type() {
  static PyGetSetDef attributes[] = {{"_inference", get_inference, set_inference, nullptr, nullptr},
                                     {nullptr, nullptr, nullptr, nullptr, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_call, reinterpret_cast<void*>(call)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
                                {Py_tp_getset, attributes},
                                {0, nullptr}};
  static PyType_Spec spec = {"fastmlp._core.FastCall", sizeof(FastCall), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
  PyObject* type = PyType_FromSpec(&spec);
  if (!type) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(type);
}

}  // namespace

void add_inference(py::module_& module) {
  py::class_<Inference>(module, "Inference")
      .def(py::init<std::shared_ptr<nn::Network>, py::array, py::array, std::vector<Py_intptr_t>>())
      .def("__call__", [](Inference& self, const py::object& x, const py::object& out) {
        py::object result = self.call(x, out);
        return result ? result : py::none();
      });
  module.attr("FastCall") = fast_call_type();
}

}  // namespace fastmlp::bindings
