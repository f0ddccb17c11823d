#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fastvid/core/error.h"
#include "fastvid/core/executor.h"

namespace fastvid {
namespace {

constexpr int kMaxThreads = 256;
// A worker spins this many times before it sleeps: waking a sleeping thread costs more than a small
// op.
constexpr int kSpins = 2000;

// One run: the tasks [0, count) in equal parts, one per thread.
class Job {
 public:
  Job(void (*task)(void*, size_t), void* context, size_t count, int threads)
      : task_(task), context_(context), parts_(static_cast<size_t>(threads)) {
    for (size_t i = 0; i < parts_.size(); ++i) {
      parts_[i].next = count * i / parts_.size();
      parts_[i].end = count * (i + 1) / parts_.size();
    }
  }

  // Does the tasks of one part in order, then helps with the others. Neighbouring tasks read
  // neighbouring memory, so each thread stays among its own.
  void work(size_t own) {
    for (size_t k = 0; k < parts_.size(); ++k) {
      Part& part = parts_[(own + k) % parts_.size()];
      for (size_t i = part.next.fetch_add(1); i < part.end; i = part.next.fetch_add(1)) {
        task_(context_, i);
      }
    }
  }

 private:
  struct alignas(64) Part {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };
  void (*task_)(void*, size_t);
  void* context_;
  std::vector<Part> parts_;
};

void pause() {
#ifdef FASTVID_X86
  __builtin_ia32_pause();
#endif
}

// One job at a time; the caller works too. A caller that finds the pool busy runs its job alone.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i] { loop(static_cast<size_t>(i)); });
    }
  }

  void run(size_t count, void (*task)(void*, size_t), void* context) {
    std::unique_lock<std::mutex> owner(busy_, std::try_to_lock);
    // A forked child has the pool's memory but none of its threads.
    if (!owner.owns_lock() || workers_.empty() || getpid() != pid_) {
      for (size_t i = 0; i < count; ++i) task(context, i);
      return;
    }
    Job job(task, context, count, static_cast<int>(workers_.size()) + 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job.work(0);
    // No work is left: wait for the threads that took part, not for those that never woke up.
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;
    }
    for (int spin = 0; active_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin < kSpins) {
        pause();
      } else {
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return active_.load(std::memory_order_acquire) == 0; });
      }
    }
  }

 private:
  void loop(size_t index) {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_relaxed) == seen;
           ++spin) {
        pause();
      }
      Job* job = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        job = job_;
        if (job != nullptr) active_.fetch_add(1, std::memory_order_relaxed);
      }
      if (job == nullptr) continue;
      job->work(index);
      if (active_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::vector<std::thread> workers_;
  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> active_{0};
  Job* job_ = nullptr;
  const pid_t pid_ = getpid();
};

class PoolExecutor final : public Executor {
 public:
  explicit PoolExecutor(int threads) : pool_(new Pool(threads)) {}
  void run(size_t count, void (*task)(void*, size_t), void* context) const override {
    pool_->run(count, task, context);
  }

 private:
  // Never deleted: its threads sleep until the process ends, and joining them at exit could hang.
  Pool* pool_;
};

}  // namespace

int default_threads() {
  static const int threads = [] {
    if (const char* text = std::getenv("FASTVID_NUM_THREADS"); text != nullptr && *text != '\0') {
      char* end = nullptr;
      const long value = std::strtol(text, &end, 10);
      if (*end != '\0' || value < 1 || value > kMaxThreads) {
        throw InputError(
            std::string("FASTVID_NUM_THREADS must be a whole number from 1 to 256, got ") + text);
      }
      return static_cast<int>(value);
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
      return std::clamp(CPU_COUNT(&set), 1, kMaxThreads);
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  }();
  return threads;
}

const Executor& own_executor(int threads) {
  if (threads == 0) threads = default_threads();
  if (threads < 1 || threads > kMaxThreads) {
    throw InputError("threads: number must be from 1 to 256, got " + std::to_string(threads));
  }
  static std::mutex mutex;
  static PoolExecutor* executors[kMaxThreads + 1] = {};
  std::lock_guard<std::mutex> lock(mutex);
  if (executors[threads] == nullptr) executors[threads] = new PoolExecutor(threads);
  return *executors[threads];
}

}  // namespace fastvid
