#include "fastvid/core/tensor.h"

#include <algorithm>
#include <cstring>

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
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
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
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kUint16:
      return 2;
    default:
      return 1;
  }
}

DType dtype_named(const char* name) {
  for (const DType dtype :
       {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kUint8, DType::kUint16}) {
    if (std::strcmp(name, dtype_name(dtype)) == 0) return dtype;
  }
  return DType::kOther;
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

void Tensor::set_contiguous() {
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
}

bool Tensor::contiguous() const {
  if (shape.elements() == 0) return true;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

size_t Tensor::extent() const {
  if (shape.elements() == 0) return 0;
  int64_t last = 0;
  for (int i = 0; i < shape.rank(); ++i) last += (shape[i] - 1) * strides[i];
  return static_cast<size_t>(last + 1) * dtype_size(dtype);
}

void require_dtype(const char* op, const Tensor& tensor, DType dtype) {
  require_dtype(op, tensor, {dtype});
}

void require_dtype(const char* op, const Tensor& tensor, std::initializer_list<DType> allowed) {
  std::string names;
  size_t left = allowed.size();
  for (const DType dtype : allowed) {
    if (tensor.dtype == dtype) return;
    names += dtype_name(dtype);
    --left;
    names += left > 1 ? ", " : left == 1 ? " or " : "";
  }
  throw InputTypeError(subject(op, tensor) + " must be " + names + ", got " +
                       dtype_name(tensor.dtype));
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
  const auto begin = reinterpret_cast<uintptr_t>(out.data);
  for (const Tensor* input : inputs) {
    if (!input->present()) continue;
    const auto other = reinterpret_cast<uintptr_t>(input->data);
    if (begin < other + input->extent() && other < begin + out.extent()) {
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
