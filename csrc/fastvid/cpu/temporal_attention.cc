#include "fastvid/cpu/temporal_attention.h"

#include "fastvid/cpu/floats.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int64_t kMaxFrames = TemporalAttention::kMaxFrames;
constexpr int64_t kMaxDim = TemporalAttention::kMaxDim;
constexpr int64_t kLine = 64;
// Elements from key to key: known to the compiler, which has no registers for so many addresses,
// and an odd number of cache lines.
constexpr int64_t kKeyRow = kMaxDim + 16;

// Sums that fit the registers beside what they are made of: keys by one or two vectors of queries,
// and rows by vectors of values.
#ifdef __AVX512VBMI__
constexpr bool kPairs = true;
constexpr int kKeys = 16, kKeysOfPair = 12, kRows = 5, kColumns = 4;
#elif defined(__AVX2__)
constexpr bool kPairs = false;
constexpr int kKeys = 6, kKeysOfPair = 1, kRows = 6, kColumns = 1;
#else
constexpr bool kPairs = false;
constexpr int kKeys = 4, kKeysOfPair = 1, kRows = 4, kColumns = 1;
#endif

// Numbers<0, 1, ..., N - 1>; std's would be shared between instruction sets.
template <int... I>
struct Numbers {};
template <int N, int... I>
struct CountFrom : CountFrom<N - 1, N - 1, I...> {};
template <int... I>
struct CountFrom<0, I...> {
  using Type = Numbers<I...>;
};
template <int N>
using Count = typename CountFrom<N>::Type;

// One sequence, that is one head of one position, is copied here before it is worked on: its rows
// lie a multiple of 4096 bytes apart in most tensors, of which a first cache holds only a few.
// Queries stand in lanes, so that the softmax runs along memory.
struct alignas(64) Tile {
  float q[kMaxDim * kMaxFrames];     // (dim, queries), scaled; then the result, (queries, dim)
  float k[kMaxFrames * kKeyRow];     // (keys, dim)
  float v[kMaxFrames * kMaxDim];     // (keys, dim)
  float p[kMaxFrames * kMaxFrames];  // (keys, queries): scores, then weights
  float inverse[kMaxFrames];         // 1 / sum of the weights of each query
};

// The sizes of a tile in use.
struct Size {
  int64_t frames, dim;
  int64_t queries, row;  // frames and dim, rounded up to whole vectors
};

// What is added to the scores of keys and queries from some on; null adds nothing.
struct Table {
  const float* data;
  int64_t row;

  Table from(int64_t key, int64_t query) const {
    return {data == nullptr ? nullptr : data + key * row + query, row};
  }
};

// The fewest parts of at most `most` that make n.
constexpr int64_t parts(int64_t n, int64_t most) { return (n + most - 1) / most; }

// Calls part(first, size) for each, nearly equal.
template <class Part>
FASTVID_INLINE void split(int64_t n, int64_t most, Part&& part) {
  const int64_t count = parts(n, most);
  for (int64_t i = 0, first = 0; i < count; ++i) {
    const int64_t size = n / count + (i < n % count ? 1 : 0);
    part(first, size);
    first += size;
  }
}

// Brings the rows of the next unit into the second cache, a line or two with every step of the
// arithmetic of this one: in a burst the processor would drop most of the requests. Row after row,
// because memory likes long runs.
class Ahead {
 public:
  // `steps` is how often step() will be called before the next start.
  void start(const TemporalAttention& a, int64_t unit, int64_t element, int64_t steps) {
    frames_ = 0;
    if (unit < a.units) {
      const int64_t first = unit % a.groups * a.group, place = unit / a.groups;
      const int64_t heads = a.group < a.heads - first ? a.group : a.heads - first;
      const TemporalView* const views[kTensors] = {&a.q, &a.k, &a.v};
      bool adjacent = true;
      for (int i = 0; i < kTensors; ++i) {
        frame_[i] = views[i]->at(place / a.positions, place % a.positions, first);
        frame_stride_[i] = views[i]->frame;
        head_stride_[i] = views[i]->head;
        adjacent = adjacent && views[i]->head == a.dim * element;
      }
      // Adjacent heads are one run.
      heads_ = adjacent ? 1 : heads;
      bytes_ = (adjacent ? heads : 1) * a.dim * element;
      frames_ = a.frames;
      const int64_t pace = (kTensors * frames_ * heads_ * (bytes_ + kLine) + steps - 1) / steps;
      pace_ = pace < 2 * kLine ? pace : 2 * kLine;
      tensor_ = head_ = 0;
    }
    next_run();
  }

  // What a loop holds in registers while it steps.
  struct Run {
    const char *at, *end;
    int64_t pace;
  };
  Run run() const { return run_; }
  void keep(const Run& run) { run_ = run; }

  FASTVID_INLINE void step(Run& run) {
    __builtin_prefetch(run.at, 0, 2);
    __builtin_prefetch(run.at + kLine, 0, 2);
    run.at += run.pace;
    if (run.at >= run.end) [[unlikely]] {
      next_run();
      run = run_;
    }
  }

 private:
  static constexpr int kTensors = 3;

  __attribute__((noinline)) void next_run() {
    if (frames_ == 0) {
      // Nothing is left: the same near line again and again.
      const char* own = reinterpret_cast<const char*>(this);
      run_ = {own, own + 1, 0};
      return;
    }
    run_ = {frame_[tensor_] + head_ * head_stride_[tensor_], nullptr, pace_};
    run_.end = run_.at + bytes_;
    if (++tensor_ < kTensors) return;
    tensor_ = 0;
    if (++head_ < heads_) return;
    head_ = 0;
    --frames_;
    for (int i = 0; i < kTensors; ++i) frame_[i] += frame_stride_[i];
  }

  Run run_{};
  int64_t pace_ = 0;
  const char* frame_[kTensors];
  int64_t frame_stride_[kTensors], head_stride_[kTensors];
  int64_t bytes_ = 0, heads_ = 0, frames_ = 0, head_ = 0, tensor_ = 0;
};

template <class T>
FASTVID_INLINE const T* typed(const char* p) {
  return reinterpret_cast<const T*>(p);
}

// Copies rows as float32; what pads a row to whole vectors is 0.
template <class T>
FASTVID_INLINE void copy_rows(const char* from, int64_t stride, const Size& s, float* to,
                              int64_t row) {
  const int64_t whole = s.dim / kFloats * kFloats;
  for (int64_t t = 0; t < s.frames; ++t, from += stride, to += row) {
    for (int64_t d = 0; d < whole; d += kFloats) store(to + d, load(typed<T>(from) + d));
    if (whole < s.row) store(to + whole, load_first(typed<T>(from) + whole, s.dim - whole));
  }
}

template <class T>
FASTVID_INLINE void write_rows(const float* from, const Size& s, char* to, int64_t stride,
                               bool stream) {
  const int64_t whole = s.dim / kFloats * kFloats;
  for (int64_t t = 0; t < s.frames; ++t, from += s.row, to += stride) {
    T* row = reinterpret_cast<T*>(to);
    if (stream) {
      for (int64_t d = 0; d < whole; d += kFloats) store_past_caches(row + d, load(from + d));
    } else {
      for (int64_t d = 0; d < whole; d += kFloats) store(row + d, load(from + d));
    }
    if (whole < s.row) store_first(row + whole, load(from + whole), s.dim - whole);
  }
}

// Queries become lanes; those that pad the last vector are 0.
template <class T>
FASTVID_INLINE void turn_queries(const char* from, int64_t stride, const Size& s, float scale,
                                 float* to) {
  const Floats factor = splat(scale), zero = splat(0.0f);
  for (int64_t t = 0; t < s.queries; t += kFloats) {
    const int64_t rows = s.frames - t;
    for (int64_t d = 0; d < s.row; d += kFloats) {
      const char* first = from + t * stride + d * static_cast<int64_t>(sizeof(T));
      Floats r[kFloats];
      if (d + kFloats > s.dim) {
#pragma GCC unroll 16
        for (int i = 0; i < kFloats; ++i) {
          r[i] = i < rows ? load_first(typed<T>(first + i * stride), s.dim - d) * factor : zero;
        }
      } else if (rows >= kFloats) {
#pragma GCC unroll 16
        for (int i = 0; i < kFloats; ++i) r[i] = load(typed<T>(first + i * stride)) * factor;
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < kFloats; ++i) {
          r[i] = i < rows ? load(typed<T>(first + i * stride)) * factor : zero;
        }
      }
      transpose(r);
#pragma GCC unroll 16
      for (int i = 0; i < kFloats; ++i) store(to + (d + i) * s.queries + t, r[i]);
    }
  }
}

// Scores of NQ vectors of queries and NK keys: each one sum over dim in order.
template <int NQ, int NK>
void score_block(const Size& s, const float* q, const float* k, const Table& table, float* p,
                 Ahead& ahead) {
  Ahead::Run run = ahead.run();
  Floats sum[NK][NQ];
#pragma GCC unroll 16
  for (int j = 0; j < NK; ++j) {
#pragma GCC unroll 2
    for (int i = 0; i < NQ; ++i) {
      sum[j][i] =
          table.data == nullptr ? splat(0.0f) : load(table.data + j * table.row + i * kFloats);
    }
  }
  for (int64_t d = 0; d < s.dim; ++d) {
    Floats x[NQ];
#pragma GCC unroll 2
    for (int i = 0; i < NQ; ++i) x[i] = load(q + d * s.queries + i * kFloats);
#pragma GCC unroll 16
    for (int j = 0; j < NK; ++j) {
      const Floats key = splat(k[j * kKeyRow + d]);
#pragma GCC unroll 2
      for (int i = 0; i < NQ; ++i) sum[j][i] = fma(key, x[i], sum[j][i]);
    }
    ahead.step(run);
  }
  ahead.keep(run);
#pragma GCC unroll 16
  for (int j = 0; j < NK; ++j) {
#pragma GCC unroll 2
    for (int i = 0; i < NQ; ++i) store(p + j * s.queries + i * kFloats, sum[j][i]);
  }
}

// NR rows and NC vectors of the result: each one sum over keys in order, then divided.
template <int NR, int NC>
void value_block(const Size& s, const float* p, const float* v, const float* inverse, float* out,
                 Ahead& ahead) {
  Ahead::Run run = ahead.run();
  Floats sum[NR][NC];
#pragma GCC unroll 8
  for (int i = 0; i < NR; ++i) {
#pragma GCC unroll 4
    for (int c = 0; c < NC; ++c) sum[i][c] = splat(0.0f);
  }
  for (int64_t j = 0; j < s.frames; ++j) {
    Floats x[NC];
#pragma GCC unroll 4
    for (int c = 0; c < NC; ++c) x[c] = load(v + j * s.row + c * kFloats);
#pragma GCC unroll 8
    for (int i = 0; i < NR; ++i) {
      const Floats weight = splat(p[j * s.queries + i]);
#pragma GCC unroll 4
      for (int c = 0; c < NC; ++c) sum[i][c] = fma(weight, x[c], sum[i][c]);
    }
    ahead.step(run);
  }
  ahead.keep(run);
#pragma GCC unroll 8
  for (int i = 0; i < NR; ++i) {
    const Floats factor = splat(inverse[i]);
#pragma GCC unroll 4
    for (int c = 0; c < NC; ++c) store(out + i * s.row + c * kFloats, sum[i][c] * factor);
  }
}

// The blocks by their number of keys or rows, from 1.
template <int NQ, class>
struct ScoreBlocks;
template <int NQ, int... I>
struct ScoreBlocks<NQ, Numbers<I...>> {
  static constexpr decltype(&score_block<1, 1>) kBlocks[] = {&score_block<NQ, I + 1>...};
};
template <int NC, class>
struct ValueBlocks;
template <int NC, int... I>
struct ValueBlocks<NC, Numbers<I...>> {
  static constexpr decltype(&value_block<1, 1>) kBlocks[] = {&value_block<I + 1, NC>...};
};

// Turns the scores of one vector of queries into weights, not yet divided by their sum.
FASTVID_INLINE void softmax_column(const Size& s, float* p, float* inverse) {
  // Finite, so that a row of nothing but -inf has weights of 0 and not NaN.
  Floats top = splat(-3.402823466e+38f);
  for (int64_t j = 0; j < s.frames; ++j) top = max(top, load(p + j * s.queries));
  Floats sum = splat(0.0f);
  for (int64_t j = 0; j < s.frames; ++j) {
    const Floats weight = exp2(load(p + j * s.queries) - top);
    sum = sum + weight;
    store(p + j * s.queries, weight);
  }
  // The sum is at least 1, or 0 where all is masked; a NaN stays one.
  store(inverse, max(splat(1.0f), sum));
  for (int i = 0; i < kFloats; ++i) inverse[i] = 1.0f / inverse[i];
}

// Scores of NQ vectors of queries from query t on.
template <int NQ>
void score_column(const Size& s, Tile& tile, const Table& table, int64_t t, Ahead& ahead) {
  constexpr int kMost = NQ == 1 ? kKeys : kKeysOfPair;
  split(s.frames, kMost, [&](int64_t j, int64_t keys) {
    ScoreBlocks<NQ, Count<kMost>>::kBlocks[keys - 1](
        s, tile.q + t, tile.k + j * kKeyRow, table.from(j, t), tile.p + j * s.queries + t, ahead);
  });
}

// NC vectors of the result from element d on.
template <int NC>
void value_column(const Size& s, Tile& tile, int64_t d, Ahead& ahead) {
  split(s.frames, kRows, [&](int64_t i, int64_t rows) {
    ValueBlocks<NC, Count<kRows>>::kBlocks[rows - 1](s, tile.p + i, tile.v + d, tile.inverse + i,
                                                     tile.q + i * s.row + d, ahead);
  });
}

void scores(const Size& s, Tile& tile, const Table& table, Ahead& ahead) {
  for (int64_t t = 0; t < s.queries;) {
    if (kPairs && s.queries - t >= 2 * kFloats) {
      score_column<2>(s, tile, table, t, ahead);
      t += 2 * kFloats;
    } else {
      score_column<1>(s, tile, table, t, ahead);
      t += kFloats;
    }
  }
}

void values(const Size& s, Tile& tile, Ahead& ahead) {
  split(s.row / kFloats, kColumns, [&](int64_t first, int64_t columns) {
    const int64_t d = first * kFloats;
    if (columns == 1) return value_column<1>(s, tile, d, ahead);
    if constexpr (kColumns > 1) {
      if (columns == 2) return value_column<2>(s, tile, d, ahead);
      if (columns == 3) return value_column<3>(s, tile, d, ahead);
      return value_column<4>(s, tile, d, ahead);
    }
  });
}

// Calls of Ahead::step for one sequence.
int64_t steps(const Size& s) {
  const int64_t vectors = s.queries / kFloats, pairs = kPairs ? vectors / 2 : 0;
  const int64_t blocks =
      pairs * parts(s.frames, kKeysOfPair) + (vectors - 2 * pairs) * parts(s.frames, kKeys);
  return blocks * s.dim + parts(s.frames, kRows) * parts(s.row / kFloats, kColumns) * s.frames;
}

template <class T>
void temporal_attention(const TemporalAttention& a, int64_t begin, int64_t end) {
  const Size s{a.frames, a.dim, parts(a.frames, kFloats) * kFloats,
               parts(a.dim, kFloats) * kFloats};
  const Table table{a.table, a.table_row};
  Tile tile;
  Ahead ahead;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t place = unit / a.groups, first = unit % a.groups * a.group;
    const int64_t b = place / a.positions, x = place % a.positions;
    const int64_t last = first + a.group < a.heads ? first + a.group : a.heads;
    ahead.start(a, unit + 1, sizeof(T), (last - first) * steps(s));
    for (int64_t h = first; h < last; ++h) {
      copy_rows<T>(a.k.at(b, x, h), a.k.frame, s, tile.k, kKeyRow);
      turn_queries<T>(a.q.at(b, x, h), a.q.frame, s, a.scale, tile.q);
      scores(s, tile, table.from(h * a.table_head, 0), ahead);
      copy_rows<T>(a.v.at(b, x, h), a.v.frame, s, tile.v, s.row);
      for (int64_t t = 0; t < s.queries; t += kFloats) {
        softmax_column(s, tile.p + t, tile.inverse + t);
      }
      values(s, tile, ahead);
      write_rows<T>(tile.q, s, a.out.at(b, x, h), a.out.frame, a.stream);
    }
  }
  if (a.stream) fence();
}

}  // namespace

void temporal_attention_float32(const TemporalAttention& a, int64_t begin, int64_t end) {
  temporal_attention<float>(a, begin, end);
}

void temporal_attention_float16(const TemporalAttention& a, int64_t begin, int64_t end) {
  temporal_attention<Half>(a, begin, end);
}

void temporal_attention_bfloat16(const TemporalAttention& a, int64_t begin, int64_t end) {
  temporal_attention<BFloat16>(a, begin, end);
}

}  // namespace fastvid::cpu::FASTVID_ISA
