#include "array.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include "fastvid/core/error.h"
#include "fastvid/cuda/device.h"

namespace fastvid::python {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// So that neither elements nor bytes of an array overflow 64 bits.
constexpr int64_t kMaxElements = int64_t{1} << 58;

std::string subject(const char* op, const char* name) { return std::string(op) + ": " + name; }

std::string type_name(const py::handle& object) {
  return py::str(py::type::of(object).attr("__name__"));
}

DType dtype_of(const py::dtype& dtype) {
  const char kind = dtype.kind();
  const auto size = dtype.itemsize();
  if (dtype.byteorder() == '>') return DType::kOther;
  if (kind == 'f' && size == 4) return DType::kFloat32;
  if (kind == 'f' && size == 2) return DType::kFloat16;
  if (kind == 'u' && size == 1) return DType::kUint8;
  if (kind == 'u' && size == 2) return DType::kUint16;
  // NumPy has no bfloat16 of its own; that of ml_dtypes is a type of kind void.
  if (kind == 'V' && size == 2 && py::str(dtype.attr("name")).equal(py::str("bfloat16"))) {
    return DType::kBFloat16;
  }
  return DType::kOther;
}

DType dtype_of(const dlpack::Array& array) {
  if (array.lanes != 1) return DType::kOther;
  if (array.code == dlpack::kFloat && array.bits == 32) return DType::kFloat32;
  if (array.code == dlpack::kFloat && array.bits == 16) return DType::kFloat16;
  if (array.code == dlpack::kBfloat && array.bits == 16) return DType::kBFloat16;
  if (array.code == dlpack::kUint && array.bits == 8) return DType::kUint8;
  if (array.code == dlpack::kUint && array.bits == 16) return DType::kUint16;
  return DType::kOther;
}

[[noreturn]] void refuse_dtype(const char* op, const char* name, const std::string& found) {
  throw InputTypeError(subject(op, name) +
                       " must be float32, float16, bfloat16, uint8 or uint16, got " + found);
}

void require_rank(const char* op, const char* name, int64_t rank) {
  if (rank <= Shape::kMaxRank) return;
  throw InputError(subject(op, name) + " must have at most 6 axes, got " + std::to_string(rank));
}

void require_size(const char* op, const Tensor& tensor) {
  int64_t count = 1;
  for (int i = 0; i < tensor.shape.rank(); ++i) {
    if (tensor.dim(i) == 0) return;
    if (__builtin_mul_overflow(count, tensor.dim(i), &count) || count > kMaxElements) {
      throw InputError(subject(op, tensor.name) + " must have at most 2^58 elements, got shape " +
                       tensor.shape.text());
    }
  }
}

// Throws where the layout is not one the caller allows.
void require_layout(const char* op, const Tensor& tensor, Layout layout) {
  const int rank = tensor.shape.rank();
  const int64_t* strides = tensor.strides;
  bool fits = tensor.contiguous();
  if (!fits && rank > 0 && layout != Layout::kContiguous) {
    fits = (layout == Layout::kStrided || rank == 2) &&
           (strides[rank - 1] == 1 || tensor.dim(rank - 1) == 1);
    for (int i = 0; i < rank - 1; ++i) {
      const int64_t least = layout == Layout::kRows && tensor.dim(i) > 1 ? tensor.dim(rank - 1) : 0;
      fits = fits && strides[i] >= least;
    }
  }
  if (fits) return;
  const char* rule = layout == Layout::kContiguous ? " must be C-contiguous"
                     : layout == Layout::kRows     ? " must be a plane with adjacent columns"
                                                   : " must be adjacent along its last axis";
  throw InputError(
      subject(op, tensor.name) + rule + ", got a strided array of shape " + tensor.shape.text(),
      "pass np.ascontiguousarray(" + std::string(tensor.name) + ")");
}

// Elements between the places where the processor expects them, as a view of bytes can have.
void require_aligned(const char* op, const Tensor& tensor) {
  const size_t past = reinterpret_cast<uintptr_t>(tensor.data) % dtype_size(tensor.dtype);
  if (past == 0) return;
  throw InputError(subject(op, tensor.name) + " must be aligned to its elements of " +
                       std::to_string(dtype_size(tensor.dtype)) + " bytes, got an address " +
                       std::to_string(past) + " past one",
                   "pass a copy of " + std::string(tensor.name));
}

// Whether two indices may name one element: axes from the closest neighbours out must each step
// past all that the ones before them span.
bool overlaps_itself(const Tensor& tensor) {
  int axes[Shape::kMaxRank], count = 0;
  for (int i = 0; i < tensor.shape.rank(); ++i) {
    if (tensor.dim(i) == 0) return false;
    if (tensor.dim(i) > 1) axes[count++] = i;
  }
  // Not std::sort, of which GCC 12 believes that it leaves so small an array.
  for (int i = 1; i < count; ++i) {
    for (int j = i; j > 0 && tensor.strides[axes[j]] < tensor.strides[axes[j - 1]]; --j) {
      std::swap(axes[j], axes[j - 1]);
    }
  }
  int64_t span = 1;
  for (int i = 0; i < count; ++i) {
    if (tensor.strides[axes[i]] < span) return true;
    span += (tensor.dim(axes[i]) - 1) * tensor.strides[axes[i]];
  }
  return false;
}

py::dtype numpy_dtype(const char* op, const Tensor& expected) {
  if (expected.dtype != DType::kBFloat16) return py::dtype(dtype_name(expected.dtype));
  try {
    return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
  } catch (const py::error_already_set&) {
    throw InputError(
        subject(op, expected.name) + " must be given for bfloat16, which NumPy lacks, got None",
        "pass out, or `pip install ml_dtypes`");
  }
}

// Aligned for streaming stores; large arrays ask for huge pages, which saves most page faults.
py::array allocate(const char* op, const Tensor& expected) {
  const py::dtype dtype = numpy_dtype(op, expected);
  const size_t bytes = static_cast<size_t>(expected.shape.elements()) * dtype_size(expected.dtype);
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kCacheLine;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  const py::capsule owner(memory, [](void* p) { std::free(p); });
  if (alignment == kHugePage) (void)madvise(memory, rounded, MADV_HUGEPAGE);
  const std::vector<py::ssize_t> shape(expected.shape.data(),
                                       expected.shape.data() + expected.shape.rank());
  return py::array(dtype, shape, memory, owner);
}

const dlpack::ExchangeApi* exchange_api(const py::handle& object) {
  static PyObject* const name = PyUnicode_InternFromString("__dlpack_c_exchange_api__");
  PyObject* capsule = PyObject_GetAttr(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())), name);
  if (capsule == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  const py::object owner = py::reinterpret_steal<py::object>(capsule);
  if (!PyCapsule_IsValid(capsule, "dlpack_exchange_api")) return nullptr;
  auto* api =
      static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  while (api != nullptr && api->version.major != dlpack::kMajor) api = api->previous;
  return api != nullptr && api->array_from_object != nullptr ? api : nullptr;
}

// A tensor of torch that training still watches: its values are not all there is to it.
bool requires_grad(const py::handle& object) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  PyObject* value = PyObject_GetAttr(object.ptr(), name);
  if (value == nullptr) {
    PyErr_Clear();
    return false;
  }
  const bool result = value == Py_True;
  Py_DECREF(value);
  return result;
}

// `object.__dlpack__`'s capsule, of DLPack 1 where the object knows it.
py::object exchanged(const py::handle& object, const py::dict& arguments) {
  // The last type that did not, kept alive: finding out by each array costs microseconds.
  static PyTypeObject* legacy = nullptr;
  static PyObject* const version = py::make_tuple(1, 1).release().ptr();
  const py::object function = object.attr("__dlpack__");
  PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type == legacy) {
    try {
      return function(**arguments);
    } catch (const py::error_already_set&) {
      // Another of this type may know more.
    }
  }
  try {
    return function(py::arg("max_version") = py::handle(version), **arguments);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  py::object capsule = function(**arguments);
  Py_INCREF(reinterpret_cast<PyObject*>(type));
  Py_XDECREF(reinterpret_cast<PyObject*>(legacy));
  legacy = type;
  return capsule;
}

}  // namespace

Call::Call(const char* op, const py::handle& stream) : op_(op) {
  if (stream.is_none()) return;
  if (!PyLong_Check(stream.ptr()) || PyBool_Check(stream.ptr())) {
    throw InputTypeError(subject(op, "stream") + " must be an int or None, got " +
                         type_name(stream));
  }
  void* address = PyLong_AsVoidPtr(stream.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw InputError(subject(op, "stream") + " must be the address of a CUDA stream, got " +
                     std::string(py::str(stream)));
  }
  stream_ = address;
}

Call::~Call() {
  for (int i = 0; i < held_; ++i) Py_DECREF(capsules_[i]);
}

Tensor Call::from_numpy(const char* name, const py::array& array, Layout layout) const {
  require_rank(op_, name, array.ndim());
  Tensor tensor{.name = name};
  const py::dtype dtype = array.dtype();
  tensor.dtype = dtype_of(dtype);
  if (tensor.dtype == DType::kOther) refuse_dtype(op_, name, py::str(dtype));
  const int rank = static_cast<int>(array.ndim());
  const auto size = static_cast<int64_t>(dtype_size(tensor.dtype));
  int64_t sizes[Shape::kMaxRank];
  for (int i = 0; i < rank; ++i) {
    sizes[i] = array.shape(i);
    // A stride of part of an element fits no layout, like a negative one.
    tensor.strides[i] = array.strides(i) % size == 0 ? array.strides(i) / size : -1;
  }
  tensor.shape = Shape(sizes, rank);
  tensor.data = const_cast<void*>(array.data());
  require_size(op_, tensor);
  require_layout(op_, tensor, layout);
  require_aligned(op_, tensor);
  return tensor;
}

Tensor Call::from_dlpack(const char* name, const dlpack::Array& array, Layout layout) {
  require_rank(op_, name, array.rank);
  Tensor tensor{.name = name};
  if (array.device_type == dlpack::kCuda || array.device_type == dlpack::kCudaManaged) {
    tensor.device = Device::kCuda;
    on_device_ = true;
  } else if (array.device_type != dlpack::kCpu && array.device_type != dlpack::kCudaHost) {
    throw InputError(subject(op_, name) +
                     " must be on the CPU or a CUDA device, got DLPack device " +
                     std::to_string(array.device_type));
  }
  tensor.dtype = dtype_of(array);
  if (tensor.dtype == DType::kOther) {
    refuse_dtype(op_, name,
                 "DLPack type " + std::to_string(array.code) + " of " + std::to_string(array.bits) +
                     " bits");
  }
  tensor.shape = Shape(array.shape, array.rank);
  tensor.data = static_cast<char*>(array.data) + array.byte_offset;
  require_size(op_, tensor);
  if (array.strides == nullptr) {
    tensor.set_contiguous();
  } else {
    std::copy(array.strides, array.strides + array.rank, tensor.strides);
  }
  require_layout(op_, tensor, layout);
  require_aligned(op_, tensor);
  return tensor;
}

bool Call::from_exchange_api(const char* name, const py::handle& object, Layout layout,
                             Tensor* tensor) {
  const dlpack::ExchangeApi* api = exchange_api(object);
  if (api == nullptr) return false;
  if (requires_grad(object)) {
    throw InputError(subject(op_, name) + " must not require a gradient, got one that does",
                     "pass " + std::string(name) + ".detach()");
  }
  dlpack::Array array{};
  if (api->array_from_object(object.ptr(), &array) != 0) {
    const py::error_already_set error;
    throw InputTypeError(subject(op_, name) + " must be an array, got " + type_name(object) + ": " +
                         error.what());
  }
  *tensor = from_dlpack(name, array, layout);
  if (tensor->device == Device::kCuda && api->current_stream != nullptr) {
    if (api->current_stream(array.device_type, array.device_id, &current_stream_) != 0) {
      PyErr_Clear();
    }
  }
  return true;
}

Tensor Call::from_capsule(const char* name, const py::handle& object, Layout layout,
                          bool* read_only) {
  py::dict arguments;
  const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
  if (device.first == dlpack::kCuda || device.first == dlpack::kCudaManaged) {
    cuda::require_device(op_);
    // 1 is DLPack's name for the legacy default stream.
    const auto address = reinterpret_cast<uintptr_t>(stream());
    arguments["stream"] = address == 0 ? uintptr_t{1} : address;
  }
  const py::object capsule = exchanged(object, arguments);
  if (held_ == kMaxHeld) throw InputError(std::string(op_) + ": too many arrays");
  const dlpack::Array* array = nullptr;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    const auto* managed = static_cast<const dlpack::ManagedVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != dlpack::kMajor) {
      throw InputTypeError(subject(op_, name) + " must be exchanged by DLPack 1, got version " +
                           std::to_string(managed->version.major));
    }
    *read_only = (managed->flags & dlpack::kReadOnly) != 0;
    array = &managed->array;
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    array = &static_cast<const dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))
                 ->array;
  } else {
    throw InputTypeError(subject(op_, name) + " must give a DLPack capsule, got " +
                         type_name(capsule));
  }
  // The capsule is not renamed, so it frees what it holds when this call drops it.
  capsules_[held_++] = capsule.inc_ref().ptr();
  return from_dlpack(name, *array, layout);
}

Tensor Call::from_object(const char* name, const py::handle& object, Layout layout,
                         bool* read_only) {
  if (py::isinstance<py::array>(object)) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    *read_only = !array.writeable();
    return from_numpy(name, array, layout);
  }
  Tensor tensor;
  if (from_exchange_api(name, object, layout, &tensor)) return tensor;
  if (!py::hasattr(object, "__dlpack__") || !py::hasattr(object, "__dlpack_device__")) {
    throw InputTypeError(subject(op_, name) + " must be a NumPy array or have __dlpack__, got " +
                         type_name(object));
  }
  try {
    return from_capsule(name, object, layout, read_only);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw InputTypeError(subject(op_, name) + " must be an array that DLPack can exchange, got " +
                         type_name(object) + ": " + error.what());
  }
}

Tensor Call::input(const char* name, const py::handle& object, Layout layout) {
  bool read_only = false;
  return from_object(name, object, layout, &read_only);
}

Tensor Call::optional_input(const char* name, const py::handle& object, Layout layout) {
  return object.is_none() ? Tensor{.name = name} : input(name, object, layout);
}

Output Call::output(const py::handle& object, const Tensor& expected, Layout layout) {
  if (object.is_none()) {
    if (on_device_) {
      throw InputError(subject(op_, expected.name) + " must be given for device arrays, got None");
    }
    py::array array = allocate(op_, expected);
    const Tensor tensor = from_numpy(expected.name, array, Layout::kContiguous);
    return {std::move(array), tensor};
  }
  bool read_only = false;
  const Tensor tensor = from_object(expected.name, object, layout, &read_only);
  if (read_only) throw InputError(subject(op_, expected.name) + " must be writable, got read-only");
  if (overlaps_itself(tensor)) {
    throw InputError(subject(op_, expected.name) +
                     " must have its own memory for each element, got a broadcast array of shape " +
                     tensor.shape.text());
  }
  return {py::reinterpret_borrow<py::object>(object), tensor};
}

void Call::require_no_stream() const {
  if (!stream_.has_value()) return;
  throw InputError(subject(op_, "stream") + " must be None for arrays on the CPU, got " +
                   std::to_string(reinterpret_cast<uintptr_t>(*stream_)));
}

}  // namespace fastvid::python
