#include "module.h"

#include <new>
#include <string>

#include "fastvid/core/error.h"
#include "fastvid/core/executor.h"
#include "fastvid/core/isa.h"
#include "fastvid/cuda/device.h"

namespace py = pybind11;

namespace fastvid::python {
namespace {

void raise(const char* type, const char* message, const std::string& hint) {
  const py::object cls = py::module_::import("fastvid.errors").attr(type);
  const py::object error = cls(message, py::arg("hint") = hint);
  PyErr_SetObject(cls.ptr(), error.ptr());
}

// The most special class first: each catch also takes the classes derived from it.
void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const InputTypeError& error) {
    raise("InputTypeError", error.what(), error.hint());
  } catch (const InputError& error) {
    raise("InputError", error.what(), error.hint());
  } catch (const NoDeviceError& error) {
    raise("NoDeviceError", error.what(), error.hint());
  } catch (const DeviceError& error) {
    raise("DeviceError", error.what(), error.hint());
  } catch (const std::bad_alloc&) {
    raise("OutOfMemoryError", "not enough memory for the output", "");
  }
}

}  // namespace
}  // namespace fastvid::python

PYBIND11_MODULE(_core, m) {
  using namespace fastvid;
  py::register_local_exception_translator(python::translate);
  m.doc() = "The compiled ops of fastvid; fastvid.ops is their public face.";
  m.attr("__version__") = FASTVID_VERSION;
  m.def("cpu_isa", [] { return isa_name(cpu_isa()); });
  m.def("cpu_isas", [] {
    py::list names;
    for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
      if (machine_runs(isa)) names.append(isa_name(isa));
    }
    return names;
  });
  m.def(
      "_force_isa",
      [](const py::object& name) {
        force_cpu_isa(name.is_none() ? nullptr : name.cast<std::string>().c_str());
      },
      py::arg("name"), "For tests: every later call of this process uses the named set.");
  m.def("cuda_compiled", &cuda::compiled);
  m.def("default_threads", &default_threads);
  python::register_attention(m);
  python::register_colour(m);
  python::register_device_array(m);
  python::register_downscale(m);
  python::register_inverse_search(m);
  python::register_linear(m);
  python::register_luma(m);
  python::register_planar(m);
  python::register_qk_norm_rope(m);
  python::register_randn(m);
  python::register_scheduler_step(m);
  python::register_softmax_splat(m);
  python::register_temporal_attention(m);
  python::register_warp(m);
  python::register_warp_blend(m);
}
