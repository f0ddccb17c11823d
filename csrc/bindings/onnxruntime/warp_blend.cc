#include "fastvid/ops/warp_blend.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attributes `output_uint8`, `output_uint16`: 1 for frames (N, H, W, 3) of that dtype instead of
// the images' (N, 3, H, W).
const Op kWarpBlend{{.name = "WarpBlend",
                     .inputs = {{"image0", kAnyDType},
                                {"image1", kAnyDType},
                                {"flow", DType::kFloat32},
                                {"mask", DType::kFloat32},
                                {"residual", kAnyDType, true}},
                     .outputs = {{.dtype = kAnyDType,
                                  .switch_attribute = "output_uint8",
                                  .other = DType::kUint8,
                                  .wide_attribute = "output_uint16"}},
                     .attributes = {{"output_uint8", 0}, {"output_uint16", 0}},
                     .compute = [](const Call& call) {
                       const WarpBlendArgs args{.image0 = call.input(0),
                                                .image1 = call.input(1),
                                                .flow = call.input(2),
                                                .mask = call.input(3),
                                                .residual = call.input(4)};
                       const DType dtype = call.integer("output_uint16") != 0  ? DType::kUint16
                                           : call.integer("output_uint8") != 0 ? DType::kUint8
                                                                               : args.image0.dtype;
                       warp_blend(args, call.output(warp_blend_output(args, dtype)),
                                  call.executor());
                     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
