// Interleaved RGB bytes to and from one 32-bit word per pixel, r | g << 8 | b << 16, on which plain
// loops vectorise. Private to the CPU kernels: included once per instruction set, hence the
// anonymous namespace.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Rounds half to even; |x| must be below 2^31.
inline int32_t round_to_int(float x) { return __builtin_irintf(x); }

inline int32_t clamp_int(int32_t x, int32_t top) {
  x = x < 0 ? 0 : x;
  return x > top ? top : x;
}

// NaN becomes 0.
inline float clamp_float(float x, float top) {
  x = x > 0.0f ? x : 0.0f;
  return x < top ? x : top;
}

inline uint32_t pack_pixel(int32_t r, int32_t g, int32_t b) {
  return static_cast<uint32_t>(r | g << 8 | b << 16);
}
inline int32_t red_of(uint32_t pixel) { return static_cast<int32_t>(pixel & 255); }
inline int32_t green_of(uint32_t pixel) { return static_cast<int32_t>(pixel >> 8 & 255); }
inline int32_t blue_of(uint32_t pixel) { return static_cast<int32_t>(pixel >> 16); }

#if defined(__AVX512VBMI__)

// Three blocks of 64 bytes are four blocks of 16 words. Byte block b lies in word blocks b and
// b + 1; word block w in byte blocks w - 1 and w (the first only in 0, the last only in 2).
struct PixelTables {
  uint8_t pack[3][64], unpack[4][64];
};
constexpr PixelTables make_pixel_tables() {
  PixelTables t{};
  for (int b = 0; b < 3; ++b) {
    for (int k = 0; k < 64; ++k) {
      const int at = 64 * b + k;
      t.pack[b][k] = static_cast<uint8_t>(4 * (at / 3 - 16 * b) + at % 3);
    }
  }
  for (int w = 0; w < 4; ++w) {
    const int first = w == 0 ? 0 : w == 3 ? 2 : w - 1;
    for (int k = 0; k < 64; ++k) {
      t.unpack[w][k] = static_cast<uint8_t>(48 * w + k / 4 * 3 + k % 4 - 64 * first);
    }
  }
  return t;
}
alignas(64) constexpr PixelTables kPixelTables = make_pixel_tables();
constexpr uint64_t kColourBytes = 0x7777777777777777;  // all but every fourth

constexpr int64_t kBlock = 64, kBlockNeeds = 64;
inline void pack_block(const uint32_t* pixels, uint8_t* rgb) {
  __m512i words[4];
  for (int i = 0; i < 4; ++i) words[i] = _mm512_loadu_si512(pixels + 16 * i);
  for (int i = 0; i < 3; ++i) {
    const __m512i table = _mm512_load_si512(kPixelTables.pack[i]);
    _mm512_storeu_si512(rgb + 64 * i, _mm512_permutex2var_epi8(words[i], table, words[i + 1]));
  }
}
inline void unpack_block(const uint8_t* rgb, uint32_t* pixels) {
  __m512i bytes[3];
  for (int i = 0; i < 3; ++i) bytes[i] = _mm512_loadu_si512(rgb + 64 * i);
  const int first[4] = {0, 0, 1, 2}, second[4] = {0, 1, 2, 2};
  for (int i = 0; i < 4; ++i) {
    const __m512i table = _mm512_load_si512(kPixelTables.unpack[i]);
    _mm512_storeu_si512(
        pixels + 16 * i,
        _mm512_maskz_permutex2var_epi8(kColourBytes, bytes[first[i]], table, bytes[second[i]]));
  }
}

#elif defined(__AVX2__)

// Four pixels are 12 bytes, but 16 are read and written: the next block or the remainder of the
// same row follows.
constexpr int64_t kBlock = 4, kBlockNeeds = 6;
inline void pack_block(const uint32_t* pixels, uint8_t* rgb) {
  const __m128i table = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rgb), _mm_shuffle_epi8(words, table));
}
inline void unpack_block(const uint8_t* rgb, uint32_t* pixels) {
  const __m128i table = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rgb));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(pixels), _mm_shuffle_epi8(bytes, table));
}

#else

// Little-endian words, as on every machine this is built for.
constexpr int64_t kBlock = 4, kBlockNeeds = 4;
inline void pack_block(const uint32_t* pixels, uint8_t* rgb) {
  const uint32_t words[3] = {pixels[0] | pixels[1] << 24, pixels[1] >> 8 | pixels[2] << 16,
                             pixels[2] >> 16 | pixels[3] << 8};
  std::memcpy(rgb, words, sizeof(words));
}
inline void unpack_block(const uint8_t* rgb, uint32_t* pixels) {
  uint32_t words[3];
  std::memcpy(words, rgb, sizeof(words));
  pixels[0] = words[0] & 0xFFFFFF;
  pixels[1] = (words[0] >> 24 | words[1] << 8) & 0xFFFFFF;
  pixels[2] = (words[1] >> 16 | words[2] << 16) & 0xFFFFFF;
  pixels[3] = words[2] >> 8;
}

#endif

inline void pack_rgb(const uint32_t* pixels, int64_t n, uint8_t* rgb) {
  int64_t i = 0;
  for (; i + kBlockNeeds <= n; i += kBlock) pack_block(pixels + i, rgb + 3 * i);
  for (; i < n; ++i) {
    rgb[3 * i] = static_cast<uint8_t>(pixels[i]);
    rgb[3 * i + 1] = static_cast<uint8_t>(pixels[i] >> 8);
    rgb[3 * i + 2] = static_cast<uint8_t>(pixels[i] >> 16);
  }
}

inline void unpack_rgb(const uint8_t* rgb, int64_t n, uint32_t* pixels) {
  int64_t i = 0;
  for (; i + kBlockNeeds <= n; i += kBlock) unpack_block(rgb + 3 * i, pixels + i);
  for (; i < n; ++i) pixels[i] = pack_pixel(rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]);
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
