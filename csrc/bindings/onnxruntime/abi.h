// The part of onnxruntime's C interface that custom ops need, written out so that building needs no
// onnxruntime headers. The interface is a table of function pointers that only ever grows: a slot,
// once given, keeps its number and its signature.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastvid::onnxruntime {

// Opaque types of onnxruntime.
struct OrtStatus;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtValue;
struct OrtTypeInfo;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtShapeInferContext;
struct OrtOpAttr;

using Table = const void* const*;

struct ApiBase {
  Table (*get_api)(uint32_t version);
  const char* (*get_version_string)();
};

// The interface version asked for: that of onnxruntime 1.24. Before it, shape inference of a node
// that leaves out an optional input dereferences a null pointer.
constexpr uint32_t kApiVersion = 24;
// The layout of CustomOp below.
constexpr uint32_t kCustomOpVersion = 18;

enum Slot : size_t {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kCreateTensorTypeAndShapeInfo = 57,
  kSetTensorElementType = 58,
  kSetDimensions = 59,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kKernelInfoGetAttributeFloat = 85,
  kKernelInfoGetAttributeInt64 = 86,
  kKernelInfoGetAttributeString = 87,
  kKernelContextGetInputCount = 88,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseStatus = 93,
  kReleaseTensorTypeAndShapeInfo = 99,
  kKernelContextGetGpuComputeStream = 193,
  kShapeInferContextGetInputTypeShape = 268,
  kShapeInferContextGetAttribute = 269,
  kShapeInferContextSetOutputTypeShape = 270,
  kSetSymbolicDimensions = 271,
  kReadOpAttr = 272,
  kKernelContextParallelFor = 274,
};

enum class ElementType : int {
  kUndefined = 0,
  kFloat32 = 1,
  kUint8 = 2,
  kUint16 = 4,
  kFloat16 = 10,
  kBFloat16 = 16
};
enum class Presence : int { kRequired = 0, kOptional = 1 };
constexpr int kInvalidArgument = 2;
constexpr int kAttributeInt64 = 1;
// Where a kernel of a device wants an input: on that device, or in host memory.
constexpr int kMemoryDefault = 0, kMemoryCpuInput = -2;

// OrtCustomOp: a version and pointers in this order. Functions that stay null
// are ones onnxruntime does not call when the V2 form is present.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, Table, const OrtKernelInfo*);
  const char* (*get_name)(const CustomOp*);
  const char* (*get_execution_provider)(const CustomOp*);
  ElementType (*get_input_type)(const CustomOp*, size_t);
  size_t (*get_input_count)(const CustomOp*);
  ElementType (*get_output_type)(const CustomOp*, size_t);
  size_t (*get_output_count)(const CustomOp*);
  void (*compute)(void*, OrtKernelContext*);
  void (*destroy_kernel)(void*);
  Presence (*get_input_presence)(const CustomOp*, size_t);
  Presence (*get_output_presence)(const CustomOp*, size_t);
  int (*get_input_memory)(const CustomOp*, size_t);
  int (*get_variadic_input_minimum)(const CustomOp*);
  int (*get_variadic_input_homogeneity)(const CustomOp*);
  int (*get_variadic_output_minimum)(const CustomOp*);
  int (*get_variadic_output_homogeneity)(const CustomOp*);
  OrtStatus* (*create_kernel_v2)(const CustomOp*, Table, const OrtKernelInfo*, void**);
  OrtStatus* (*compute_v2)(void*, OrtKernelContext*);
  OrtStatus* (*infer_output_shapes)(const CustomOp*, OrtShapeInferContext*);
  int (*get_start_version)(const CustomOp*);
  int (*get_end_version)(const CustomOp*);
  size_t (*get_may_inplace)(int**, int**);
  void (*release_may_inplace)(int*, int*);
  size_t (*get_alias_map)(int**, int**);
  void (*release_alias_map)(int*, int*);
};

// The table of the onnxruntime that loaded us; set before any op runs.
Table table();

template <class R, class... Args>
R call(Slot slot, Args... args) {
  return reinterpret_cast<R (*)(Args...)>(const_cast<void*>(table()[slot]))(args...);
}

}  // namespace fastvid::onnxruntime
