#include "fastvid/ops/planar.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

const Op kRgbToPlanar{{.name = "RgbToPlanar",
                       .inputs = {{"frames", kAnyDType}},
                       .outputs = {{DType::kFloat32}},
                       .compute = [](const Call& call) {
                         const Tensor frames = call.input(0);
                         const Tensor out = call.output(rgb_to_planar_output(frames));
                         rgb_to_planar(frames, out, call.executor());
                       }}};

// Attribute `output_uint16`: 1 for uint16 frames.
const Op kPlanarToRgb{{.name = "PlanarToRgb",
                       .inputs = {{"x", DType::kFloat32}},
                       .outputs = {{.dtype = DType::kUint8, .wide_attribute = "output_uint16"}},
                       .attributes = {{"output_uint16", 0}},
                       .compute = [](const Call& call) {
                         const Tensor x = call.input(0);
                         const bool wide = call.integer("output_uint16") != 0;
                         const Tensor out = call.output(
                             planar_to_rgb_output(x, wide ? DType::kUint16 : DType::kUint8));
                         planar_to_rgb(x, out, call.executor());
                       }}};

}  // namespace
}  // namespace fastvid::onnxruntime
