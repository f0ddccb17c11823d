#include "array.h"

#include <pybind11/stl.h>
#include <sys/mman.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "fastvid/core/error.h"

namespace fastvid::python {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

std::string subject(const char* op, const char* name) { return std::string(op) + ": " + name; }

DType dtype_of(char kind, int64_t size, char order) {
  const bool native = order != '>';
  if (kind == 'f' && size == 4 && native) return DType::kFloat32;
  if (kind == 'u' && size == 1) return DType::kUint8;
  if (kind == 'u' && size == 2 && native) return DType::kUint16;
  return DType::kOther;
}

[[noreturn]] void refuse_dtype(const char* op, const char* name, const std::string& found) {
  throw InputTypeError(subject(op, name) + " must be float32, uint8 or uint16, got " + found);
}

[[noreturn]] void refuse_layout(const char* op, const char* name, const Shape& shape) {
  throw InputError(
      subject(op, name) + " must be C-contiguous, got a strided array of shape " + shape.text(),
      "pass np.ascontiguousarray(" + std::string(name) + ")");
}

// Sets row_stride and says whether the layout is one the caller allows. Strides count bytes.
bool layout_fits(Tensor& tensor, const int64_t* strides, Rows rows) {
  const auto size = static_cast<int64_t>(dtype_size(tensor.dtype));
  const int rank = tensor.shape.rank();
  if (rank > 0) tensor.row_stride = tensor.dim(rank - 1);
  if (strides == nullptr || tensor.shape.elements() == 0) return true;
  int64_t expected = size;
  for (int i = rank - 1; i >= 0; --i) {
    if (tensor.dim(i) != 1 && strides[i] != expected) {
      const bool row_of_plane = rows == Rows::kMayBeStrided && rank == 2 && i == 0;
      if (!row_of_plane || strides[0] < expected || strides[0] % size != 0) return false;
      tensor.row_stride = strides[0] / size;
    }
    expected *= tensor.dim(i);
  }
  return true;
}

Tensor from_numpy(const char* op, const char* name, const py::array& array, Rows rows) {
  if (array.ndim() > Shape::kMaxRank) {
    throw InputError(subject(op, name) + " must have at most 6 axes, got " +
                     std::to_string(array.ndim()));
  }
  Tensor tensor{.name = name};
  tensor.dtype = dtype_of(array.dtype().kind(), array.itemsize(), array.dtype().byteorder());
  if (tensor.dtype == DType::kOther) refuse_dtype(op, name, py::str(array.dtype()));
  int64_t sizes[Shape::kMaxRank], strides[Shape::kMaxRank];
  for (int i = 0; i < array.ndim(); ++i) {
    sizes[i] = array.shape(i);
    strides[i] = array.strides(i);
  }
  tensor.shape = Shape(sizes, static_cast<int>(array.ndim()));
  tensor.data = const_cast<void*>(array.data());
  if (!layout_fits(tensor, strides, rows)) refuse_layout(op, name, tensor.shape);
  return tensor;
}

Tensor from_cuda(const char* op, const char* name, const py::handle& object, Rows rows,
                 bool* read_only) {
  try {
    const py::dict interface = object.attr("__cuda_array_interface__");
    const auto type = interface["typestr"].cast<std::string>();
    const auto data = interface["data"].cast<py::tuple>();
    const auto shape = interface["shape"].cast<std::vector<int64_t>>();
    Tensor tensor{.name = name, .device = Device::kCuda};
    tensor.data = reinterpret_cast<void*>(data[0].cast<uintptr_t>());
    *read_only = data[1].cast<bool>();
    if (type.size() < 3) refuse_dtype(op, name, type);
    tensor.dtype = dtype_of(type[1], std::stol(type.substr(2)), type[0]);
    if (tensor.dtype == DType::kOther) refuse_dtype(op, name, type);
    tensor.shape = Shape(shape.data(), static_cast<int>(shape.size()));
    std::vector<int64_t> strides;
    if (interface.contains("strides") && !interface["strides"].is_none()) {
      strides = interface["strides"].cast<std::vector<int64_t>>();
      if (strides.size() != shape.size()) refuse_layout(op, name, tensor.shape);
    }
    if (!layout_fits(tensor, strides.empty() ? nullptr : strides.data(), rows)) {
      refuse_layout(op, name, tensor.shape);
    }
    return tensor;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw InputTypeError(subject(op, name) +
                         " must have a valid __cuda_array_interface__, got: " + error.what());
  }
}

Tensor from_object(const char* op, const char* name, const py::handle& object, Rows rows,
                   bool* read_only) {
  if (py::isinstance<py::array>(object)) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    *read_only = !array.writeable();
    return from_numpy(op, name, array, rows);
  }
  if (py::hasattr(object, "__cuda_array_interface__")) {
    return from_cuda(op, name, object, rows, read_only);
  }
  throw InputTypeError(subject(op, name) + " must be a NumPy array, got " +
                       std::string(py::str(py::type::of(object).attr("__name__"))));
}

// Aligned for streaming stores; large arrays ask for huge pages, which saves most page faults.
py::array allocate(const Tensor& expected) {
  const size_t bytes = static_cast<size_t>(expected.shape.elements()) * dtype_size(expected.dtype);
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kCacheLine;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  const py::capsule owner(memory, [](void* p) { std::free(p); });
  if (alignment == kHugePage) (void)madvise(memory, rounded, MADV_HUGEPAGE);
  const std::vector<py::ssize_t> shape(expected.shape.data(),
                                       expected.shape.data() + expected.shape.rank());
  return py::array(py::dtype(dtype_name(expected.dtype)), shape, memory, owner);
}

}  // namespace

Tensor input(const char* op, const char* name, const py::handle& object, Rows rows) {
  bool read_only = false;
  return from_object(op, name, object, rows, &read_only);
}

Tensor optional_input(const char* op, const char* name, const py::handle& object) {
  return object.is_none() ? Tensor{.name = name} : input(op, name, object);
}

Output output(const char* op, const py::handle& object, const Tensor& expected,
              const Tensor& first_input, Rows rows) {
  if (object.is_none()) {
    if (first_input.device == Device::kCuda) {
      throw InputError(subject(op, expected.name) + " must be given for device arrays, got None");
    }
    py::array array = allocate(expected);
    const Tensor tensor = from_numpy(op, expected.name, array, Rows::kContiguous);
    return {std::move(array), tensor};
  }
  bool read_only = false;
  const Tensor tensor = from_object(op, expected.name, object, rows, &read_only);
  if (read_only) throw InputError(subject(op, expected.name) + " must be writable, got read-only");
  return {py::reinterpret_borrow<py::object>(object), tensor};
}

void* stream_of(const py::handle& object) {
  const py::dict interface = object.attr("__cuda_array_interface__");
  if (!interface.contains("stream") || interface["stream"].is_none()) return nullptr;
  return reinterpret_cast<void*>(interface["stream"].cast<uintptr_t>());
}

}  // namespace fastvid::python
