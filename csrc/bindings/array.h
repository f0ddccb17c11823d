// Python arrays as tensors: what can only be checked on the Python object is checked here, the
// rest (dtype, shape, overlap) by the op.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "dlpack.h"
#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid::python {

namespace py = pybind11;

// What an op takes: C-contiguous arrays; planes whose rows may stand apart; any non-negative
// strides with neighbours along the last axis adjacent.
enum class Layout { kContiguous, kRows, kStrided };

// An output and the Python object that owns it.
struct Output {
  py::object object;
  Tensor tensor;
};

// One call of an op from Python: its arrays live as long as it does.
class Call {
 public:
  // `stream` is None or the address of a CUDA stream.
  Call(const char* op, const py::handle& stream);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // An input: a NumPy array, or any object with `__dlpack__`, on the CPU or a CUDA device. Throws
  // InputTypeError for another object, InputError for a layout, NoDeviceError for a CUDA array
  // where there is no device. `name` must outlive the tensor.
  Tensor input(const char* name, const py::handle& object, Layout layout = Layout::kContiguous);

  // The same where None means absent.
  Tensor optional_input(const char* name, const py::handle& object,
                        Layout layout = Layout::kContiguous);

  // `object` as an output (writable, laid out as for an input, no element twice), or a new NumPy
  // array like `expected` where it is None. Device arrays cannot be made here: with one among the
  // inputs, None is an InputError.
  Output output(const py::handle& object, const Tensor& expected,
                Layout layout = Layout::kContiguous);

  // Runs fn(executor) without the GIL: on `threads` threads (0: the default), or on the stream of
  // this call where its arrays are on a device.
  template <class Fn>
  void run(int threads, Fn&& fn) const {
    if (on_device_) {
      const StreamExecutor executor(stream());
      const py::gil_scoped_release release;
      fn(executor);
      return;
    }
    require_no_stream();
    const Executor& executor = own_executor(threads);
    const py::gil_scoped_release release;
    fn(executor);
  }

 private:
  class StreamExecutor final : public Executor {
   public:
    explicit StreamExecutor(void* stream) : stream_(stream) {}
    void run(size_t count, void (*task)(void*, size_t), void* context) const override {
      for (size_t i = 0; i < count; ++i) task(context, i);
    }
    void* cuda_stream() const override { return stream_; }

   private:
    void* stream_;
  };

  Tensor from_object(const char* name, const py::handle& object, Layout layout, bool* read_only);
  Tensor from_numpy(const char* name, const py::array& array, Layout layout) const;
  Tensor from_dlpack(const char* name, const dlpack::Array& array, Layout layout);
  bool from_exchange_api(const char* name, const py::handle& object, Layout layout, Tensor* tensor);
  Tensor from_capsule(const char* name, const py::handle& object, Layout layout, bool* read_only);
  void require_no_stream() const;
  void* stream() const { return stream_.value_or(current_stream_); }

  static constexpr int kMaxHeld = 24;

  const char* op_;
  std::optional<void*> stream_;
  void* current_stream_ = nullptr;  // of the library that an array came from
  bool on_device_ = false;
  int held_ = 0;
  PyObject* capsules_[kMaxHeld];
};

}  // namespace fastvid::python
