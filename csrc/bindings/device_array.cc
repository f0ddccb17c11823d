// Memory that Python code owns, as a capsule that any library's `from_dlpack` takes.
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "dlpack.h"
#include "module.h"

namespace py = pybind11;

namespace fastvid::python {
namespace {

template <class Managed>
struct Lease {
  Managed managed;
  std::vector<int64_t> sizes;  // shape, then strides
  PyObject* owner;
};

template <class Managed>
constexpr const char* kName = "dltensor";
template <>
constexpr const char* kName<dlpack::ManagedVersioned> = "dltensor_versioned";

// Whoever took the capsule may end this on a thread of its own, and after the interpreter.
template <class Managed>
void end(Managed* managed) {
  auto* lease = static_cast<Lease<Managed>*>(managed->context);
  if (Py_IsInitialized() != 0) {
    const py::gil_scoped_acquire gil;
    Py_DECREF(lease->owner);
  }
  delete lease;
}

// A capsule that was taken has another name by then.
template <class Managed>
void drop(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kName<Managed>) == 0) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, kName<Managed>));
  managed->deleter(managed);
}

template <class Managed>
py::object lend(const dlpack::Array& array, const std::vector<int64_t>& shape, py::object owner) {
  auto lease = std::make_unique<Lease<Managed>>();
  const size_t rank = shape.size();
  lease->sizes = shape;
  lease->sizes.resize(2 * rank);
  int64_t stride = 1;
  for (size_t i = rank; i-- > 0;) {
    lease->sizes[rank + i] = stride;
    stride *= shape[i];
  }
  lease->managed.array = array;
  lease->managed.array.rank = static_cast<int32_t>(rank);
  lease->managed.array.shape = lease->sizes.data();
  lease->managed.array.strides = lease->sizes.data() + rank;
  lease->managed.context = lease.get();
  lease->managed.deleter = &end<Managed>;
  if constexpr (std::is_same_v<Managed, dlpack::ManagedVersioned>) {
    lease->managed.version = {dlpack::kMajor, 0};
  }
  PyObject* capsule = PyCapsule_New(&lease->managed, kName<Managed>, &drop<Managed>);
  if (capsule == nullptr) throw py::error_already_set();
  lease->owner = owner.release().ptr();
  lease.release();
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

void register_device_array(py::module_& m) {
  m.def(
      "_dlpack_capsule",
      [](uintptr_t address, const py::tuple& shape, int code, int bits, int device_type,
         int device_id, py::object owner, bool versioned) {
        std::vector<int64_t> sizes;
        for (const py::handle& size : shape) sizes.push_back(size.cast<int64_t>());
        dlpack::Array array{};
        array.data = reinterpret_cast<void*>(address);
        array.device_type = device_type;
        array.device_id = device_id;
        array.code = static_cast<uint8_t>(code);
        array.bits = static_cast<uint8_t>(bits);
        array.lanes = 1;
        return versioned ? lend<dlpack::ManagedVersioned>(array, sizes, std::move(owner))
                         : lend<dlpack::Managed>(array, sizes, std::move(owner));
      },
      py::arg("address"), py::arg("shape"), py::arg("code"), py::arg("bits"),
      py::arg("device_type"), py::arg("device_id"), py::arg("owner"), py::arg("versioned"),
      "A DLPack capsule of C-contiguous memory that keeps `owner` alive.");
}

}  // namespace fastvid::python
