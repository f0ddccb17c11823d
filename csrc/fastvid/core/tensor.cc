#include "fastvid/core/tensor.h"

#include <algorithm>

#include "fastvid/core/error.h"

namespace fastvid {
namespace {

std::string subject(const char* op, const Tensor& tensor) {
  return std::string(op) + ": " + tensor.name;
}

}  // namespace

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kUint8:
      return "uint8";
    case DType::kUint16:
      return "uint16";
    default:
      return "another dtype";
  }
}

size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kUint16:
      return 2;
    default:
      return 1;
  }
}

Shape::Shape(const int64_t* sizes, int rank) : rank_(rank) {
  if (rank < 0 || rank > kMaxRank) {
    throw InputError("shape: rank must be at most 6, got " + std::to_string(rank));
  }
  std::copy(sizes, sizes + rank, sizes_);
}

int64_t Shape::elements() const {
  int64_t count = 1;
  for (int i = 0; i < rank_; ++i) count *= sizes_[i];
  return count;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(sizes_, sizes_ + rank_, other.sizes_);
}

std::string Shape::text() const {
  std::string text = "(";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(sizes_[i]);
  }
  return text + (rank_ == 1 ? ",)" : ")");
}

void require_dtype(const char* op, const Tensor& tensor, DType dtype) {
  if (tensor.dtype == dtype) return;
  throw InputTypeError(subject(op, tensor) + " must be " + dtype_name(dtype) + ", got " +
                       dtype_name(tensor.dtype));
}

void require_dtype(const char* op, const Tensor& tensor, DType first, DType second) {
  if (tensor.dtype == first || tensor.dtype == second) return;
  throw InputTypeError(subject(op, tensor) + " must be " + dtype_name(first) + " or " +
                       dtype_name(second) + ", got " + dtype_name(tensor.dtype));
}

void require_rank(const char* op, const Tensor& tensor, const char* layout) {
  const std::string axes = layout;
  if (tensor.shape.rank() == 1 + std::count(axes.begin(), axes.end(), ',')) return;
  throw InputError(subject(op, tensor) + " must be " + axes + ", got shape " + tensor.shape.text());
}

void require_shape(const char* op, const Tensor& tensor, const Shape& shape) {
  if (tensor.shape == shape) return;
  throw InputError(subject(op, tensor) + " must have shape " + shape.text() + ", got " +
                   tensor.shape.text());
}

void require_not_empty(const char* op, const Tensor& tensor) {
  if (tensor.shape.elements() > 0) return;
  throw InputError(subject(op, tensor) + " must not be empty, got shape " + tensor.shape.text());
}

void require_apart(const char* op, const Tensor& out, std::initializer_list<const Tensor*> inputs) {
  const auto extent = [](const Tensor& t) {
    int64_t elements = t.shape.elements();
    if (t.shape.rank() == 2 && elements > 0 && t.row_stride > 0) {
      elements = (t.dim(0) - 1) * t.row_stride + t.dim(1);
    }
    return static_cast<size_t>(elements) * dtype_size(t.dtype);
  };
  const auto begin = reinterpret_cast<uintptr_t>(out.data);
  for (const Tensor* input : inputs) {
    if (!input->present()) continue;
    const auto other = reinterpret_cast<uintptr_t>(input->data);
    if (begin < other + extent(*input) && other < begin + extent(out)) {
      throw InputError(subject(op, out) + " must not share memory with " + input->name +
                       ", got overlapping arrays");
    }
  }
}

bool on_cuda(const char* op, std::initializer_list<const Tensor*> tensors) {
  const Tensor* first = nullptr;
  for (const Tensor* tensor : tensors) {
    if (!tensor->present()) continue;
    if (first == nullptr) first = tensor;
    if (tensor->device != first->device) {
      throw InputError(std::string(op) + ": all arrays must be on one device, got " + first->name +
                       " and " + tensor->name + " on different ones");
    }
  }
  return first != nullptr && first->device == Device::kCuda;
}

}  // namespace fastvid
