// Python arrays as tensors: what can only be checked on the Python object is checked here, the
// rest (dtype, shape, overlap) by the op.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid::python {

namespace py = pybind11;

enum class Rows { kContiguous, kMayBeStrided };

// An input: a NumPy array, or any object with __cuda_array_interface__. C-contiguous; with
// Rows::kMayBeStrided the rows of a 2-D array may stand apart. Throws InputTypeError for another
// object, InputError for a layout. `name` must outlive the tensor.
Tensor input(const char* op, const char* name, const py::handle& object,
             Rows rows = Rows::kContiguous);

// The same where None means absent.
Tensor optional_input(const char* op, const char* name, const py::handle& object);

// An output and the Python object that owns it.
struct Output {
  py::object object;
  Tensor tensor;
};

// `object` as an output (writable, laid out as for an input), or a new array like `expected` where
// it is None. Device arrays cannot be made here: with one among the inputs, None is an InputError.
Output output(const char* op, const py::handle& object, const Tensor& expected,
              const Tensor& first_input, Rows rows = Rows::kContiguous);

// Runs fn(executor) without the GIL on `threads` threads (0: the default), on the stream that `out`
// names where it is on a device.
template <class Fn>
void run(const Output& out, int threads, Fn&& fn);

// The stream of a device array: entry "stream" of __cuda_array_interface__; null where it has none.
void* stream_of(const py::handle& object);

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

template <class Fn>
void run(const Output& out, int threads, Fn&& fn) {
  if (out.tensor.device == Device::kCuda) {
    const StreamExecutor executor(stream_of(out.object));
    const py::gil_scoped_release release;
    fn(executor);
    return;
  }
  const Executor& executor = own_executor(threads);
  const py::gil_scoped_release release;
  fn(executor);
}

}  // namespace fastvid::python
