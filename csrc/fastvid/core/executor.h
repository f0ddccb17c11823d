// Who runs the pieces of an op: the project's own thread pool, or the pool of the runtime that
// hosts the op.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fastvid {

class Executor {
 public:
  virtual ~Executor() = default;

  // Calls task(context, i) once for every i in [0, count), in any order and on any thread, and
  // returns when all are done. A task must not throw.
  virtual void run(size_t count, void (*task)(void*, size_t), void* context) const = 0;

  // The CUDA stream that work on device memory goes to; null is the legacy default stream.
  virtual void* cuda_stream() const { return nullptr; }
};

// The project's pool. `threads` is the number used, the caller's included; 0 means the default:
// FASTVID_NUM_THREADS, or the processors this process may run on. Throws InputError for a number
// outside 1 to 256.
const Executor& own_executor(int threads);

// The default of own_executor(0).
int default_threads();

// Splits [0, rows) into chunks of `grain` rows and calls body(begin, end) for each.
template <class Body>
void for_rows(const Executor& executor, int64_t rows, int64_t grain, Body&& body) {
  struct Context {
    std::remove_reference_t<Body>* body;
    int64_t rows, grain;
  } context{&body, rows, grain};
  const auto chunks = static_cast<size_t>((rows + grain - 1) / grain);
  if (chunks == 0) return;
  if (chunks == 1) {
    body(int64_t{0}, rows);
    return;
  }
  executor.run(
      chunks,
      [](void* opaque, size_t i) {
        const auto& c = *static_cast<Context*>(opaque);
        const int64_t begin = static_cast<int64_t>(i) * c.grain;
        (*c.body)(begin, begin + c.grain < c.rows ? begin + c.grain : c.rows);
      },
      &context);
}

}  // namespace fastvid
