// What the machine can do at most: copying and multiplying. limits.py compiles it for the machine.
#include <atomic>
#include <cstddef>
#include <cstring>
#include <functional>
#include <thread>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float Vector __attribute__((vector_size(kBytes), aligned(4), may_alias));
constexpr int kLanes = kBytes / 4;
// Enough independent sums to hide the latency of a multiply-add, few enough to stay in registers.
constexpr int kSums = 12;

// The caller works too; the others wait for a while before they sleep, as the ops' threads do.
class Pool {
 public:
  explicit Pool(int threads) : threads_(threads) {
    for (int i = 1; i < threads; ++i) std::thread([this, i] { loop(i); }).detach();
  }

  void run(const std::function<void(int)>& task) {
    task_ = &task;
    left_.store(threads_ - 1);
    generation_.fetch_add(1);
    generation_.notify_all();
    task(0);
    for (int left = left_.load(); left != 0; left = left_.load()) left_.wait(left);
  }

  const int threads_;

 private:
  void loop(int index) {
    for (unsigned seen = 0;;) {
      generation_.wait(seen);
      seen = generation_.load();
      (*task_)(index);
      if (left_.fetch_sub(1) == 1) left_.notify_one();
    }
  }

  const std::function<void(int)>* task_ = nullptr;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> left_{0};
};

void copy_plain(const char* from, char* to, size_t bytes) {
  const Vector* source = reinterpret_cast<const Vector*>(from);
  Vector* target = reinterpret_cast<Vector*>(to);
  for (size_t i = 0; i < bytes / kBytes; ++i) target[i] = source[i];
  std::memcpy(to + bytes / kBytes * kBytes, from + bytes / kBytes * kBytes, bytes % kBytes);
}

// Past the caches; to plain stores where the machine has none.
void copy_streaming(const char* from, char* to, size_t bytes) {
#ifdef __SSE2__
  for (; bytes > 0 && reinterpret_cast<size_t>(to) % kBytes != 0; --bytes) *to++ = *from++;
  for (; bytes >= kBytes; bytes -= kBytes, from += kBytes, to += kBytes) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX__)
    _mm256_stream_ps(reinterpret_cast<float*>(to), _mm256_loadu_ps((const float*)from));
#else
    _mm_stream_ps(reinterpret_cast<float*>(to), _mm_loadu_ps((const float*)from));
#endif
  }
  _mm_sfence();
#endif
  copy_plain(from, to, bytes);
}

// Tells the compiler that a register may have any value.
#if defined(__x86_64__)
#define LIMITS_UNKNOWN(value) asm volatile("" : "+v"(value))
#else
#define LIMITS_UNKNOWN(value) asm volatile("" : "+w"(value))
#endif

void multiply_float32(size_t steps) {
  Vector sums[kSums] = {}, a = {}, b = {};
  LIMITS_UNKNOWN(a);
  LIMITS_UNKNOWN(b);
  for (auto& sum : sums) LIMITS_UNKNOWN(sum);  // else all sums are one
  for (size_t i = 0; i < steps; ++i) {
    for (auto& sum : sums) sum = a * b + sum;
  }
  for (auto& sum : sums) asm volatile("" ::"m"(sum));
}

#ifdef __AVX512BF16__
void multiply_bfloat16(size_t steps) {
  __m512 sums[kSums] = {};
  __m512bh a{}, b{};
  LIMITS_UNKNOWN(a);
  LIMITS_UNKNOWN(b);
  for (auto& sum : sums) LIMITS_UNKNOWN(sum);  // else all sums are one
  for (size_t i = 0; i < steps; ++i) {
    for (auto& sum : sums) sum = _mm512_dpbf16_ps(sum, a, b);
  }
  for (auto& sum : sums) asm volatile("" ::"m"(sum));
}
#endif

}  // namespace

extern "C" {

Pool* limits_pool(int threads) { return new Pool(threads); }

void limits_copy(Pool* pool, const char* from, char* to, size_t bytes, int streaming) {
  const size_t part = (bytes / pool->threads_ + 63) / 64 * 64;
  pool->run([&](int i) {
    const size_t begin = part * i < bytes ? part * i : bytes;
    const size_t end = begin + part < bytes ? begin + part : bytes;
    (streaming ? copy_streaming : copy_plain)(from + begin, to + begin, end - begin);
  });
}

// Runs about `flops` operations, a multiply-add being two. False: the machine has no such unit.
bool limits_multiply(Pool* pool, double flops, int bfloat16) {
  const double per_step = 2.0 * kSums * kLanes * (bfloat16 ? 2 : 1);
  const auto steps = static_cast<size_t>(flops / per_step / pool->threads_) + 1;
#ifdef __AVX512BF16__
  if (bfloat16) {
    pool->run([&](int) { multiply_bfloat16(steps); });
    return true;
  }
#endif
  if (bfloat16) return false;
  pool->run([&](int) { multiply_float32(steps); });
  return true;
}
}
