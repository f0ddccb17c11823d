// Kernels of temporal attention: with matrix units for aligned float16 and bfloat16, and plain.
// Both take as many sequences (one head of one place) as there are, in the first grid axis.
#pragma once

#include <cfloat>
#include <cstdint>

#include "fastvid/cuda/half.cuh"

namespace fastvid::cuda {

constexpr int kTemporalThreads = 128;

// A view (B, T, S, H, D) with D contiguous; strides in elements.
template <class T>
struct TemporalView {
  T* data;
  int64_t batch, frame, place, head;
};

template <class T>
struct TemporalProblem {
  TemporalView<const T> q, k, v;
  TemporalView<T> out;
  int64_t sequences, places, heads;
  int frames, dim;
  float scale;        // times log2(e)
  const float* bias;  // (heads, query, key), or null; bias_head is 0 where all heads share it
  int64_t bias_head;
  bool causal;
  bool fours;  // four neighbours may be read and written at once
};

namespace {

// One sequence of a view.
template <class T>
__device__ T* sequence_of(const TemporalView<T>& view, int64_t b, int64_t s, int64_t h) {
  return view.data + b * view.batch + s * view.place + h * view.head;
}

struct Place {
  int64_t b, s, h;
  template <class T>
  __device__ Place(const TemporalProblem<T>& p, int64_t sequence) {
    h = sequence % p.heads;
    s = sequence / p.heads % p.places;
    b = sequence / p.heads / p.places;
  }
};

// What is added to the score of a query and a key, times log2(e).
template <class T>
__device__ float added(const TemporalProblem<T>& p, int64_t h, int query, int key) {
  if (key >= p.frames || (p.causal && key > query)) return -INFINITY;
  if (p.bias == nullptr || query >= p.frames) return 0.0f;
  return 1.44269504f * __ldg(p.bias + h * p.bias_head + query * p.frames + key);
}

template <class T>
__device__ void read_four(const T* p, bool fours, float* out) {
  if (fours) {
    load_four(p, out);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) out[j] = to_float(p[j]);
  }
}

constexpr int kChunk = 16;

// Columns [d, d + kChunk) of the rows of one sequence into shared memory, by `lanes` threads; what
// lies outside is 0.
template <class T, int kKeys>
__device__ void stage(const T* rows, int64_t stride, const TemporalProblem<T>& p, int d, int lane,
                      int lanes, float (*tile)[kChunk]) {
// More at once would not fit the registers beside the weights.
#pragma unroll 2
  for (int piece = lane; piece < kKeys * kChunk / 4; piece += lanes) {
    const int row = piece / (kChunk / 4), column = piece % (kChunk / 4) * 4;
    float four[4] = {};
    if (row < p.frames && d + column < p.dim) {
      read_four(rows + row * stride + d + column, p.fours, four);
    }
    *reinterpret_cast<float4*>(&tile[row][column]) =
        make_float4(four[0], four[1], four[2], four[3]);
  }
}

// A lane holds one query, and kKeys lanes (at most 32) one sequence; 64 keys take two items of 32
// queries. Keys and values pass through shared memory, which all lanes read at one address.
template <class T, int kKeys>
__device__ __forceinline__ void temporal_attention_plain_block(const TemporalProblem<T>& p) {
  constexpr int kLanes = kKeys < 32 ? kKeys : 32, kGroups = kTemporalThreads / kLanes;
  constexpr int kItems = kKeys / kLanes;
  // Tiles start at different banks, so that the groups of a warp do not wait for each other.
  struct Tile {
    float rows[kKeys][kChunk];
    float4 apart;
  };
  __shared__ Tile tiles[kGroups];
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const int64_t item = int64_t{blockIdx.x} * kGroups + group;
  // Lanes without a sequence repeat the last one, because the warp works in step.
  const int64_t sequence = item / kItems < p.sequences ? item / kItems : p.sequences - 1;
  const int query = static_cast<int>(item % kItems) * kLanes + lane;
  const Place at(p, sequence);
  const T* q = sequence_of(p.q, at.b, at.s, at.h) + query * p.q.frame;
  const T* k = sequence_of(p.k, at.b, at.s, at.h);
  const T* v = sequence_of(p.v, at.b, at.s, at.h);
  auto* tile = tiles[group].rows;
  float w[kKeys];
#pragma unroll
  for (int j = 0; j < kKeys; ++j) w[j] = 0.0f;
#pragma unroll 1
  for (int d = 0; d < p.dim; d += kChunk) {
    __syncwarp();
    stage<T, kKeys>(k, p.k.frame, p, d, lane, kLanes, tile);
    float x[kChunk] = {};
#pragma unroll
    for (int i = 0; i < kChunk; i += 4) {
      if (query < p.frames && d + i < p.dim) read_four(q + d + i, p.fours, x + i);
    }
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
#pragma unroll
      for (int i = 0; i < kChunk; i += 4) {
        const float4 key = *reinterpret_cast<const float4*>(&tile[j][i]);
        w[j] = __fmaf_rn(key.x, x[i], w[j]);
        w[j] = __fmaf_rn(key.y, x[i + 1], w[j]);
        w[j] = __fmaf_rn(key.z, x[i + 2], w[j]);
        w[j] = __fmaf_rn(key.w, x[i + 3], w[j]);
      }
    }
  }
  // Finite, so that a query without keys has weights of 0 and not NaN.
  float top = -FLT_MAX, sum = 0.0f;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    w[j] = j < p.frames ? __fmaf_rn(w[j], p.scale, added(p, at.h, query, j)) : -INFINITY;
    top = fmaxf(top, w[j]);
  }
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    w[j] = exp2f(w[j] - top);
    sum += w[j];
  }
  const float factor = 1.0f / fmaxf(sum, 1.0f);
  const bool present = query < p.frames && item / kItems < p.sequences;
  T* out = sequence_of(p.out, at.b, at.s, at.h) + query * p.out.frame;
#pragma unroll 1
  for (int d = 0; d < p.dim; d += kChunk) {
    __syncwarp();
    stage<T, kKeys>(v, p.v.frame, p, d, lane, kLanes, tile);
    __syncwarp();
    float x[kChunk] = {};
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
#pragma unroll
      for (int i = 0; i < kChunk; i += 4) {
        const float4 value = *reinterpret_cast<const float4*>(&tile[j][i]);
        x[i] = __fmaf_rn(value.x, w[j], x[i]);
        x[i + 1] = __fmaf_rn(value.y, w[j], x[i + 1]);
        x[i + 2] = __fmaf_rn(value.z, w[j], x[i + 2]);
        x[i + 3] = __fmaf_rn(value.w, w[j], x[i + 3]);
      }
    }
#pragma unroll
    for (int i = 0; i < kChunk; i += 4) {
      if (!present || d + i >= p.dim) continue;
#pragma unroll
      for (int j = 0; j < 4; ++j) x[i + j] *= factor;
      if (p.fours) {
        store_four(out + d + i, x + i);
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) from_float(x[i + j], out + d + i + j);
      }
    }
  }
}

// c += a b of 16 x 16 and 16 x 8, one warp (PTX ISA, mma.m16n8k16).
__device__ void multiply(float* c, const unsigned* a, unsigned b0, unsigned b1, const Half*) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
__device__ void multiply(float* c, const unsigned* a, unsigned b0, unsigned b1, const BFloat16*) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

template <class T>
__device__ unsigned pack(float low, float high) {
  T two[2];
  from_float(low, two);
  from_float(high, two + 1);
  return unsigned{two[0].bits} | unsigned{two[1].bits} << 16;
}

// Eight neighbours of a row, or zeros.
template <class T>
__device__ uint4 read_eight(const T* rows, int64_t stride, const TemporalProblem<T>& p, int row,
                            int d) {
  if (row >= p.frames || d >= p.dim) return make_uint4(0, 0, 0, 0);
  return __ldg(reinterpret_cast<const uint4*>(rows + row * stride + d));
}

// Columns [d, d + 64) of 16 values, as a thread needs them: four rows, eight neighbours of each.
template <class T>
struct Values {
  uint4 row[4];

  __device__ void read(const T* v, const TemporalProblem<T>& p, int first, int d, int lane) {
    const int key = first + lane % 4 * 2, column = d + lane / 4 * 8;
    row[0] = read_eight(v, p.v.frame, p, key, column);
    row[1] = read_eight(v, p.v.frame, p, key + 1, column);
    row[2] = read_eight(v, p.v.frame, p, key + 8, column);
    row[3] = read_eight(v, p.v.frame, p, key + 9, column);
  }
};

__device__ unsigned word_of(const uint4& four, int i) {
  return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
}

// One warp makes 16 queries of one sequence. In both products the order of what is summed is free,
// and in the second that of the columns: it is chosen so that every thread reads and writes eight
// neighbours, and no value passes through shared memory.
template <class T, int kTiles>
__device__ __forceinline__ void temporal_attention_tiled_block(const TemporalProblem<T>& p) {
  constexpr int kSteps = kTiles / 2;
  const int lane = threadIdx.x % 32, row = lane / 4, quad = lane % 4;
  const int64_t item = int64_t{blockIdx.x} * (kTemporalThreads / 32) + threadIdx.x / 32;
  const int queries = (p.frames + 15) / 16;
  if (item >= p.sequences * queries) return;
  // Heads of one place are neighbours in a block: together they read whole rows.
  const int tile = static_cast<int>(item / p.heads % queries);
  const Place at(p, item / p.heads / queries * p.heads + item % p.heads);
  const T* q = sequence_of(p.q, at.b, at.s, at.h);
  const T* k = sequence_of(p.k, at.b, at.s, at.h);
  const T* v = sequence_of(p.v, at.b, at.s, at.h);
  const int upper = 16 * tile + row, lower = upper + 8;
  float w[kTiles][4] = {};
#pragma unroll 2
  for (int start = 0; start < p.dim; start += 32) {
    const int d = start + 8 * quad;
    const uint4 one = read_eight(q, p.q.frame, p, upper, d);
    const uint4 two = read_eight(q, p.q.frame, p, lower, d);
    const unsigned a[2][4] = {{one.x, two.x, one.y, two.y}, {one.z, two.z, one.w, two.w}};
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint4 key = read_eight(k, p.k.frame, p, 8 * n + row, d);
      multiply(w[n], a[0], key.x, key.y, static_cast<const T*>(nullptr));
      multiply(w[n], a[1], key.z, key.w, static_cast<const T*>(nullptr));
    }
  }
  Values<T> values[kSteps];
  // Early, where there are registers for it: the softmax then hides the wait.
  if (kSteps <= 2) {
#pragma unroll
    for (int j = 0; j < kSteps; ++j) values[j].read(v, p, 16 * j, 0, lane);
  }
  float top[2] = {-FLT_MAX, -FLT_MAX}, sum[2] = {};
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = 8 * n + 2 * quad + i % 2;
      const float more = added(p, at.h, i < 2 ? upper : lower, key);
      w[n][i] = key < p.frames ? __fmaf_rn(w[n][i], p.scale, more) : -INFINITY;
      top[i / 2] = fmaxf(top[i / 2], w[n][i]);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], 1));
    top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], 2));
  }
  unsigned a[kSteps][4];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      w[n][i] = exp2f(w[n][i] - top[i / 2]);
      sum[i / 2] += w[n][i];
    }
    a[n / 2][n % 2 * 2] = pack<T>(w[n][0], w[n][1]);
    a[n / 2][n % 2 * 2 + 1] = pack<T>(w[n][2], w[n][3]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
    sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
    sum[i] = 1.0f / fmaxf(sum[i], 1.0f);
  }
  T* out = sequence_of(p.out, at.b, at.s, at.h);
  for (int d = 0; d < p.dim; d += 64) {
    float c[8][4] = {};
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      if (kSteps > 2 || d > 0) values[j].read(v, p, 16 * j, d, lane);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const unsigned half = n % 2 == 0 ? 0x5410u : 0x7632u;
        const auto pair = [&](int i) {
          return __byte_perm(word_of(values[j].row[i], n / 2), word_of(values[j].row[i + 1], n / 2),
                             half);
        };
        multiply(c[n], a[j], pair(0), pair(2), static_cast<const T*>(nullptr));
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = i < 2 ? upper : lower, column = d + 16 * quad + i % 2 * 8;
      if (query >= p.frames || column >= p.dim) continue;
      const float f = sum[i / 2];
      const uint4 eight =
          make_uint4(pack<T>(f * c[0][i], f * c[1][i]), pack<T>(f * c[2][i], f * c[3][i]),
                     pack<T>(f * c[4][i], f * c[5][i]), pack<T>(f * c[6][i], f * c[7][i]));
      *reinterpret_cast<uint4*>(out + query * p.out.frame + column) = eight;
    }
  }
}

}  // namespace
}  // namespace fastvid::cuda
