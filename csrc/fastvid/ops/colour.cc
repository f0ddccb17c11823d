#include "fastvid/ops/colour.h"

#include <algorithm>
#include <string>

#include "fastvid/core/error.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/colour.h"
#include "fastvid/cuda/colour.h"

namespace fastvid {
namespace {

// About this many pixels make one task: small enough to share out evenly, large enough to pay.
constexpr int64_t kTaskPixels = 32768;

struct Constants {
  double kr, kb;
  double y_range, chroma_range, y_offset, chroma_offset;
  double kg() const { return 1.0 - kr - kb; }
};

Constants constants(const YuvFormat& format) {
  Constants c{};
  switch (format.matrix) {
    case YuvMatrix::kBt601:
      c.kr = 0.299, c.kb = 0.114;
      break;
    case YuvMatrix::kBt709:
      c.kr = 0.2126, c.kb = 0.0722;
      break;
    case YuvMatrix::kBt2020:
      c.kr = 0.2627, c.kb = 0.0593;
      break;
  }
  const double step = 1 << (format.bit_depth - 8), top = (1 << format.bit_depth) - 1;
  c.y_range = format.full_range ? top : 219.0 * step;
  c.chroma_range = format.full_range ? top : 224.0 * step;
  c.y_offset = format.full_range ? 0.0 : 16.0 * step;
  c.chroma_offset = 128.0 * step;
  return c;
}

YuvLayout layout_of(const YuvFormat& format, int64_t height, int64_t width) {
  YuvLayout layout;
  layout.height = height;
  layout.width = width;
  layout.wide = format.bit_depth > 8;
  layout.bit_depth = format.bit_depth;
  layout.shift_x = format.shift_x;
  layout.shift_y = format.shift_y;
  switch (format.location) {
    case ChromaLocation::kLeft:
    case ChromaLocation::kTopLeft:
    case ChromaLocation::kBottomLeft:
      layout.siting_x = Siting::kEven;
      break;
    default:
      layout.siting_x = Siting::kMiddle;
  }
  switch (format.location) {
    case ChromaLocation::kTopLeft:
    case ChromaLocation::kTop:
      layout.siting_y = Siting::kEven;
      break;
    case ChromaLocation::kBottomLeft:
    case ChromaLocation::kBottom:
      layout.siting_y = Siting::kOdd;
      break;
    default:
      layout.siting_y = Siting::kMiddle;
  }
  return layout;
}

int64_t grain_of(int64_t width, int rows_each) {
  return std::max<int64_t>(1, kTaskPixels / (width * rows_each));
}

DType sample_dtype(const YuvFormat& format) {
  return format.bit_depth > 8 ? DType::kUint16 : DType::kUint8;
}

Shape chroma_shape(const YuvFormat& format, int64_t height, int64_t width) {
  return {(height + format.shift_y) >> format.shift_y, (width + format.shift_x) >> format.shift_x};
}

void require_samples(const char* op, const Tensor& plane, const YuvFormat& format) {
  if (plane.dtype == sample_dtype(format)) return;
  throw InputTypeError(std::string(op) + ": " + plane.name + " must be " +
                       dtype_name(sample_dtype(format)) + " for bit_depth " +
                       std::to_string(format.bit_depth) + ", got " + dtype_name(plane.dtype));
}

template <class Planes>
Planes planes_of(const YuvTensors& yuv) {
  Planes planes;
  const Tensor* tensors[3] = {&yuv.y, &yuv.u, &yuv.v};
  for (int i = 0; i < 3; ++i) {
    planes.data[i] = tensors[i]->data;
    planes.stride[i] = tensors[i]->strides[0] * static_cast<int64_t>(dtype_size(tensors[i]->dtype));
  }
  return planes;
}

// What stands for 1.
double unit_of(DType dtype) {
  return dtype == DType::kUint8 ? 255.0 : dtype == DType::kUint16 ? 65535.0 : 1.0;
}

YuvToRgb make_yuv_to_rgb(const YuvTensors& yuv, const Tensor& out, const YuvFormat& format) {
  const Constants c = constants(format);
  const double unit = unit_of(out.dtype);
  const double red = 2.0 * (1.0 - c.kr) * unit / c.chroma_range / 16.0;
  const double blue = 2.0 * (1.0 - c.kb) * unit / c.chroma_range / 16.0;
  YuvToRgb op{};
  op.yuv = planes_of<ConstYuvPlanes>(yuv);
  op.layout = layout_of(format, yuv.y.dim(0), yuv.y.dim(1));
  op.y_offset = static_cast<float>(c.y_offset);
  op.y_scale = static_cast<float>(unit / c.y_range);
  op.v_to_r = static_cast<float>(red);
  op.u_to_g = static_cast<float>(-blue * c.kb / c.kg());
  op.v_to_g = static_cast<float>(-red * c.kr / c.kg());
  op.u_to_b = static_cast<float>(blue);
  if (out.dtype == DType::kUint8) {
    op.rgb = out.as<uint8_t>();
  } else if (out.dtype == DType::kUint16) {
    op.wide_rgb = out.as<uint16_t>();
  } else {
    op.planar = out.as<float>();
  }
  return op;
}

RgbToYuv make_rgb_to_yuv(const Tensor& rgb, const YuvTensors& out, const YuvFormat& format) {
  const Constants c = constants(format);
  const double unit = unit_of(rgb.dtype), luma = c.y_range / unit;
  const double u = c.chroma_range / unit / 16.0 / (2.0 * (1.0 - c.kb));
  const double v = c.chroma_range / unit / 16.0 / (2.0 * (1.0 - c.kr));
  RgbToYuv op{};
  if (rgb.dtype == DType::kUint8) {
    op.rgb = rgb.as<const uint8_t>();
  } else if (rgb.dtype == DType::kUint16) {
    op.wide_rgb = rgb.as<const uint16_t>();
  } else {
    op.planar = rgb.as<const float>();
  }
  op.yuv = planes_of<YuvPlanes>(out);
  op.layout = layout_of(format, out.y.dim(0), out.y.dim(1));
  op.y_offset = static_cast<float>(c.y_offset);
  op.chroma_offset = static_cast<float>(c.chroma_offset);
  op.y_scale = static_cast<float>(luma);
  op.red_to_y = static_cast<float>(c.kr * luma);
  op.blue_to_y = static_cast<float>(c.kb * luma);
  op.to_u[0] = static_cast<float>(-c.kr * u);
  op.to_u[1] = static_cast<float>((1.0 - c.kb) * u);
  op.to_v[0] = static_cast<float>((1.0 - c.kr) * v);
  op.to_v[1] = static_cast<float>(-c.kb * v);
  return op;
}

}  // namespace

Tensor yuv_to_rgb_output(const YuvTensors& yuv, const YuvFormat& format, RgbLayout layout) {
  constexpr const char* op = "yuv_to_rgb";
  for (const Tensor* plane : {&yuv.y, &yuv.u, &yuv.v}) {
    require_samples(op, *plane, format);
    require_rank(op, *plane, "(H, W)");
  }
  require_not_empty(op, yuv.y);
  const int64_t height = yuv.y.dim(0), width = yuv.y.dim(1);
  require_shape(op, yuv.u, chroma_shape(format, height, width));
  require_shape(op, yuv.v, chroma_shape(format, height, width));
  if (layout != RgbLayout::kPlanar) {
    const DType dtype = layout == RgbLayout::kWide ? DType::kUint16 : DType::kUint8;
    return {.name = "out", .dtype = dtype, .shape = {height, width, 3}};
  }
  return {.name = "out", .dtype = DType::kFloat32, .shape = {1, 3, height, width}};
}

void yuv_to_rgb(const YuvTensors& yuv, const Tensor& out, const YuvFormat& format,
                const Executor& executor) {
  constexpr const char* op = "yuv_to_rgb";
  require_dtype(op, out, {DType::kUint8, DType::kUint16, DType::kFloat32});
  const auto layout = out.dtype == DType::kUint8    ? RgbLayout::kInterleaved
                      : out.dtype == DType::kUint16 ? RgbLayout::kWide
                                                    : RgbLayout::kPlanar;
  require_shape(op, out, yuv_to_rgb_output(yuv, format, layout).shape);
  require_apart(op, out, {&yuv.y, &yuv.u, &yuv.v});
  const YuvToRgb work = make_yuv_to_rgb(yuv, out, format);
  if (on_cuda(op, {&yuv.y, &yuv.u, &yuv.v, &out})) {
    cuda::yuv_to_rgb(work, yuv, out, executor.cuda_stream());
    return;
  }
  const auto kernel = FASTVID_BY_ISA(yuv_rows_to_rgb);
  for_rows(executor, work.layout.height, grain_of(work.layout.width, 1),
           [&](int64_t begin, int64_t end) { kernel(work, begin, end); });
}

YuvTensors rgb_to_yuv_output(const Tensor& rgb, const YuvFormat& format) {
  constexpr const char* op = "rgb_to_yuv";
  require_dtype(op, rgb, {DType::kUint8, DType::kUint16, DType::kFloat32});
  const bool planar = rgb.dtype == DType::kFloat32;
  require_rank(op, rgb, planar ? "(1, 3, H, W)" : "(H, W, 3)");
  const int64_t height = rgb.dim(planar ? 2 : 0), width = rgb.dim(planar ? 3 : 1);
  require_shape(op, rgb, planar ? Shape{1, 3, height, width} : Shape{height, width, 3});
  require_not_empty(op, rgb);
  const Shape chroma = chroma_shape(format, height, width);
  const DType dtype = sample_dtype(format);
  return {{.name = "out y", .dtype = dtype, .shape = {height, width}},
          {.name = "out u", .dtype = dtype, .shape = chroma},
          {.name = "out v", .dtype = dtype, .shape = chroma}};
}

void rgb_to_yuv(const Tensor& rgb, const YuvTensors& out, const YuvFormat& format,
                const Executor& executor) {
  constexpr const char* op = "rgb_to_yuv";
  const YuvTensors expected = rgb_to_yuv_output(rgb, format);
  for (const Tensor* plane : {&out.y, &out.u, &out.v}) require_samples(op, *plane, format);
  require_shape(op, out.y, expected.y.shape);
  require_shape(op, out.u, expected.u.shape);
  require_shape(op, out.v, expected.v.shape);
  require_apart(op, out.y, {&rgb});
  require_apart(op, out.u, {&rgb, &out.y});
  require_apart(op, out.v, {&rgb, &out.y, &out.u});
  const RgbToYuv work = make_rgb_to_yuv(rgb, out, format);
  if (on_cuda(op, {&rgb, &out.y, &out.u, &out.v})) {
    cuda::rgb_to_yuv(work, rgb, out, executor.cuda_stream());
    return;
  }
  const int shift = format.shift_y;
  const auto kernel = FASTVID_BY_ISA(rgb_rows_to_yuv);
  for_rows(executor, (work.layout.height + shift) >> shift, grain_of(work.layout.width, 1 + shift),
           [&](int64_t begin, int64_t end) { kernel(work, begin, end); });
}

}  // namespace fastvid
