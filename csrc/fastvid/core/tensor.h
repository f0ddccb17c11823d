// What an op is given: named memory with a dtype and a shape, and the checks every op makes of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace fastvid {

enum class DType { kFloat32, kFloat16, kBFloat16, kUint8, kUint16, kOther };
enum class Device { kCpu, kCuda };

const char* dtype_name(DType dtype);
size_t dtype_size(DType dtype);
// The dtype called `name`, kOther where there is none.
DType dtype_named(const char* name);

// Up to six sizes, outermost first.
class Shape {
 public:
  static constexpr int kMaxRank = 6;
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes)
      : Shape(sizes.begin(), static_cast<int>(sizes.size())) {}
  Shape(const int64_t* sizes, int rank);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return sizes_[axis]; }
  const int64_t* data() const { return sizes_; }
  int64_t elements() const;
  bool operator==(const Shape& other) const;
  // "(1, 3, 720, 1280)", as Python prints it.
  std::string text() const;

 private:
  int64_t sizes_[kMaxRank] = {};
  int rank_ = 0;
};

// Memory that someone else owns. Neighbours along axis i are `strides[i]` elements apart, never a
// negative number; whoever makes a tensor fills them in.
struct Tensor {
  const char* name = "";
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape{};
  Device device = Device::kCpu;
  int64_t strides[Shape::kMaxRank] = {};

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  bool present() const { return data != nullptr || shape.rank() != 0; }
  int64_t dim(int axis) const { return shape[axis]; }
  void set_contiguous();
  bool contiguous() const;
  // Bytes from the first to the end of the last element.
  size_t extent() const;
};

// Each throws `op: name must be ..., got ...`: InputTypeError for a dtype, InputError otherwise.
void require_dtype(const char* op, const Tensor& tensor, DType dtype);
void require_dtype(const char* op, const Tensor& tensor, std::initializer_list<DType> allowed);
// `layout` names the axes, for instance "(N, C, H, W)"; its number of axes is the rank.
void require_rank(const char* op, const Tensor& tensor, const char* layout);
void require_shape(const char* op, const Tensor& tensor, const Shape& shape);
// No size of the tensor may be 0.
void require_not_empty(const char* op, const Tensor& tensor);
// The output shares no byte with an input.
void require_apart(const char* op, const Tensor& out, std::initializer_list<const Tensor*> inputs);

// Whether all (present) tensors are on a CUDA device; throws where some are and some are not.
bool on_cuda(const char* op, std::initializer_list<const Tensor*> tensors);

}  // namespace fastvid
