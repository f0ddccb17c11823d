#include "fastvid/ops/luma.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

const Op kRgbToLuma{{.name = "RgbToLuma",
                     .inputs = {{"frames", kAnyDType}},
                     .outputs = {{DType::kFloat32}, {DType::kFloat32}},
                     .compute = [](const Call& call) {
                       const Tensor frames = call.input(0);
                       const LumaTensors expected = rgb_to_luma_output(frames);
                       const LumaTensors out{call.output(expected.luma, 0),
                                             call.output(expected.chroma, 1)};
                       rgb_to_luma(frames, out, call.executor());
                     }}};

// Attribute `output_uint16`: 1 for uint16 frames.
const Op kLumaToRgb{{.name = "LumaToRgb",
                     .inputs = {{"luma", DType::kFloat32}, {"chroma", DType::kFloat32}},
                     .outputs = {{.dtype = DType::kUint8, .wide_attribute = "output_uint16"}},
                     .attributes = {{"output_uint16", 0}},
                     .compute = [](const Call& call) {
                       const LumaTensors in{call.input(0), call.input(1)};
                       const bool wide = call.integer("output_uint16") != 0;
                       const Tensor out = call.output(
                           luma_to_rgb_output(in, wide ? DType::kUint16 : DType::kUint8));
                       luma_to_rgb(in, out, call.executor());
                     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
