// What the noise of every device is made of: Philox4x32-10 (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", 2011) and the polynomials of Cephes for the logarithm, sine and
// cosine.
#pragma once

#include <cstdint>

namespace fastvid {

// Element i of a noise is element i % 4 of the block that belongs to the counter
// (low half of i / 4, high half of i / 4, subsequence, 0) under the key `seed`.
struct Noise {
  uint64_t seed = 0;
  uint32_t subsequence = 0;
  uint64_t offset = 0;  // the element an array starts with
};

namespace philox {
constexpr int kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
}  // namespace philox

// Uniform numbers have 24 bits.
constexpr int kUniformShift = 8;
constexpr float kUniformStep = 1.0f / 16777216.0f;

// ln(m) = t - t^2 / 2 + t^3 P(t) with t = m - 1 and m in [sqrt(1/2), sqrt(2)), highest power first;
// ln(2) in two parts, the first of so few bits that its multiples by an exponent are exact.
constexpr uint32_t kSqrtHalfBits = 0x3f3504f3u, kOneBits = 0x3f800000u, kMantissa = 0x007fffffu;
constexpr float kLog[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                           -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                           2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;

// sin(x) = x + x^3 S(x^2) and cos(x) = 1 - x^2 / 2 + x^4 C(x^2) for |x| <= pi / 4.
constexpr float kSin[3] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
constexpr float kCos[3] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
// An angle of k steps is k / 2^24 turns; a quarter of a turn is 2^22 steps.
constexpr float kRadiansPerStep = static_cast<float>(6.283185307179586 / 16777216.0);
constexpr int kQuarterShift = 22;

}  // namespace fastvid
