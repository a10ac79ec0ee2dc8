// A backend on its way from one extension module to another: a capsule whose name carries the
// version of the interface, since a pybind11 type would tie the two builds together.
//
// Where the device has streams, the capsule's context is a Python tuple of the module that holds
// the backend, which so stays alive, and a function that returns the current stream as an integer.
// The bindings ask that function at each native call: no caller can forget the stream, and on the
// CPU, whose capsule has no context, there is nothing to ask.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "core/backend.h"

namespace fastmlp::bindings {

namespace py = pybind11;

inline py::capsule to_capsule(Backend& backend, const py::object& module,
                              const py::object& current_stream) {
  PyObject* capsule = PyCapsule_New(&backend, backend_capsule, [](PyObject* self) {
    Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(self)));
  });
  if (!capsule) throw py::error_already_set();
  auto result = py::reinterpret_steal<py::capsule>(capsule);
  if (!current_stream.is_none()) {
    py::tuple context = py::make_tuple(module, current_stream);
    PyCapsule_SetContext(capsule, context.release().ptr());
  }
  return result;
}

inline Backend& backend_of(const py::capsule& capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), backend_capsule))
    throw std::runtime_error(std::string("backend: needs a ") + backend_capsule + ", got a " +
                             PyCapsule_GetName(capsule.ptr()) +
                             "; fastmlp's extension modules are of different versions, install "
                             "fastmlp anew");
  return *static_cast<Backend*>(PyCapsule_GetPointer(capsule.ptr(), backend_capsule));
}

inline bool has_streams(const py::capsule& capsule) {
  return PyCapsule_GetContext(capsule.ptr()) != nullptr;
}

// The stream that a call shall run on; null on the CPU. Needs the GIL.
inline void* current_stream(const py::capsule& capsule) {
  auto* context = static_cast<PyObject*>(PyCapsule_GetContext(capsule.ptr()));
  if (!context) return nullptr;
  const py::handle function = PyTuple_GET_ITEM(context, 1);
  return reinterpret_cast<void*>(py::cast<std::uintptr_t>(function()));
}

}  // namespace fastmlp::bindings
