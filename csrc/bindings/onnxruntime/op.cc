#include "op.h"

#include <cstring>
#include <exception>
#include <memory>

#include "fastvid/core/error.h"

namespace fastvid::onnxruntime {
namespace {

// Function-local, so that ops of other files can add themselves while the library loads.
std::vector<const Op*>& ops() {
  static std::vector<const Op*> list;
  return list;
}

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kUint8,
                             DType::kUint16};

DType dtype_of(ElementType type) {
  for (DType dtype : kDTypes) {
    if (type == element_type(dtype)) return dtype;
  }
  return DType::kOther;
}

// For calls that fail only where onnxruntime itself is out of memory or misused.
void check(OrtStatus* status) {
  if (status == nullptr) return;
  release(status);
  throw Error("onnxruntime: a call of its interface failed");
}

Tensor tensor_of(OrtValue* value, const char* name, Device device) {
  Tensor tensor{.name = name, .device = device};
  OrtTypeInfo* info = nullptr;
  check(call<OrtStatus*>(kGetTensorTypeAndShape, static_cast<const OrtValue*>(value), &info));
  const auto* constant = static_cast<const OrtTypeInfo*>(info);
  ElementType type = ElementType::kUndefined;
  size_t rank = 0;
  int64_t sizes[Shape::kMaxRank] = {};
  check(call<OrtStatus*>(kGetTensorElementType, constant, &type));
  check(call<OrtStatus*>(kGetDimensionsCount, constant, &rank));
  if (rank <= Shape::kMaxRank) check(call<OrtStatus*>(kGetDimensions, constant, sizes + 0, rank));
  call<void>(kReleaseTensorTypeAndShapeInfo, info);
  tensor.shape = Shape(sizes, static_cast<int>(rank));
  tensor.dtype = dtype_of(type);
  tensor.set_contiguous();
  check(call<OrtStatus*>(kGetTensorMutableData, value, &tensor.data));
  return tensor;
}

struct Kernel {
  const ProviderOp* op;
  std::vector<Value> values;
};

const ProviderOp& op_of(const CustomOp* op) { return *static_cast<const ProviderOp*>(op); }

// Each says whether the node has an attribute of that name and type.
bool read(const OrtKernelInfo* info, const char* name, int64_t& value) {
  auto* status = call<OrtStatus*>(kKernelInfoGetAttributeInt64, info, name, &value);
  release(status);
  return status == nullptr;
}

bool read(const OrtKernelInfo* info, const char* name, float& value) {
  auto* status = call<OrtStatus*>(kKernelInfoGetAttributeFloat, info, name, &value);
  release(status);
  return status == nullptr;
}

bool read(const OrtKernelInfo* info, const char* name, std::string& value) {
  size_t size = 0;
  auto* status = call<OrtStatus*>(kKernelInfoGetAttributeString, info, name,
                                  static_cast<char*>(nullptr), &size);
  release(status);
  if (status != nullptr || size == 0) return false;
  std::string text(size, '\0');
  check(call<OrtStatus*>(kKernelInfoGetAttributeString, info, name, text.data(), &size));
  text.resize(size - 1);
  value = text;
  return true;
}

Value value_of(const OrtKernelInfo* info, const Attribute& attribute, const char* op) {
  int64_t integer = 0;
  float number = 0;
  std::string text;
  const Value found = read(info, attribute.name, integer)  ? Value(integer)
                      : read(info, attribute.name, number) ? Value(number)
                      : read(info, attribute.name, text)   ? Value(text)
                                                           : attribute.fallback;
  if (found.index() == attribute.fallback.index()) return found;
  constexpr const char* kTypes[] = {"an integer", "a float", "a string"};
  throw InputTypeError(std::string(op) + ": attribute " + attribute.name + " must be " +
                       kTypes[attribute.fallback.index()] + ", got " + kTypes[found.index()]);
}

// No exception may cross onnxruntime's frames.
template <class Body>
OrtStatus* guarded(const ProviderOp& op, Body&& body) {
  const std::string where = std::string("fastvid.") + op.description->name + ": ";
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return failure(where + error.what());
  } catch (...) {
    return failure(where + "unknown error");
  }
}

OrtStatus* create_kernel(const CustomOp* custom, Table, const OrtKernelInfo* info, void** kernel) {
  const ProviderOp& op = op_of(custom);
  return guarded(op, [&] {
    auto created = std::make_unique<Kernel>(Kernel{&op, {}});
    for (const Attribute& attribute : op.description->attributes) {
      created->values.push_back(value_of(info, attribute, op.description->name));
    }
    *kernel = created.release();
  });
}

OrtStatus* compute(void* opaque, OrtKernelContext* context) {
  const auto& kernel = *static_cast<const Kernel*>(opaque);
  const ProviderOp& op = *kernel.op;
  return guarded(op, [&] {
    op.description->compute(Call(context, *op.description, op.device, kernel.values));
  });
}

}  // namespace

const std::vector<const Op*>& all_ops() { return ops(); }

OrtStatus* failure(const std::string& message) {
  return call<OrtStatus*>(kCreateStatus, kInvalidArgument, message.c_str());
}

void release(OrtStatus* status) {
  if (status != nullptr) call<void>(kReleaseStatus, status);
}

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return ElementType::kFloat32;
    case DType::kFloat16:
      return ElementType::kFloat16;
    case DType::kBFloat16:
      return ElementType::kBFloat16;
    case DType::kUint8:
      return ElementType::kUint8;
    case DType::kUint16:
      return ElementType::kUint16;
    default:
      return ElementType::kUndefined;
  }
}

Tensor Call::input(size_t i) const {
  const Input& input = description_.inputs[i];
  const auto* context = static_cast<const OrtKernelContext*>(context_);
  size_t count = 0;
  check(call<OrtStatus*>(kKernelContextGetInputCount, context, &count));
  const OrtValue* value = nullptr;
  if (i < count) check(call<OrtStatus*>(kKernelContextGetInput, context, i, &value));
  if (value == nullptr) return {.name = input.name};
  return tensor_of(const_cast<OrtValue*>(value), input.name, input.host ? Device::kCpu : device_);
}

Tensor Call::output(const Tensor& expected, size_t i) const {
  OrtValue* value = nullptr;
  check(call<OrtStatus*>(kKernelContextGetOutput, context_, i, expected.shape.data(),
                         static_cast<size_t>(expected.shape.rank()), &value));
  return tensor_of(value, expected.name, device_);
}

const Value& Call::attribute(const char* name) const {
  for (size_t i = 0; i < description_.attributes.size(); ++i) {
    if (std::strcmp(description_.attributes[i].name, name) == 0) return values_[i];
  }
  throw Error(std::string("no attribute is called ") + name);
}

void Call::SessionExecutor::run(size_t count, void (*task)(void*, size_t), void* context) const {
  check(call<OrtStatus*>(kKernelContextParallelFor, static_cast<const OrtKernelContext*>(context_),
                         task, count, size_t{0}, context));
}

void* Call::SessionExecutor::cuda_stream() const {
  if (device_ != Device::kCuda) return nullptr;
  void* stream = nullptr;
  check(call<OrtStatus*>(kKernelContextGetGpuComputeStream,
                         static_cast<const OrtKernelContext*>(context_), &stream));
  return stream;
}

ProviderOp::ProviderOp(const Description& op_description, Device op_device)
    : CustomOp{}, description(&op_description), device(op_device) {
  version = kCustomOpVersion;
  get_name = [](const CustomOp* op) { return op_of(op).description->name; };
  get_execution_provider = [](const CustomOp* op) {
    return op_of(op).device == Device::kCuda ? "CUDAExecutionProvider" : "CPUExecutionProvider";
  };
  get_input_type = [](const CustomOp* op, size_t i) {
    return element_type(op_of(op).description->inputs[i].dtype);
  };
  get_input_count = [](const CustomOp* op) { return op_of(op).description->inputs.size(); };
  get_output_type = [](const CustomOp* op, size_t i) {
    const Result& result = op_of(op).description->outputs[i];
    return result.varies() ? ElementType::kUndefined : element_type(result.dtype);
  };
  get_output_count = [](const CustomOp* op) { return op_of(op).description->outputs.size(); };
  destroy_kernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  get_input_presence = [](const CustomOp* op, size_t i) {
    return op_of(op).description->inputs[i].optional ? Presence::kOptional : Presence::kRequired;
  };
  get_output_presence = [](const CustomOp*, size_t) { return Presence::kRequired; };
  get_input_memory = [](const CustomOp* op, size_t i) {
    const bool host = op_of(op).device == Device::kCuda && op_of(op).description->inputs[i].host;
    return host ? kMemoryCpuInput : kMemoryDefault;
  };
  get_variadic_input_minimum = get_variadic_output_minimum = [](const CustomOp*) { return 0; };
  get_variadic_input_homogeneity =
      get_variadic_output_homogeneity = [](const CustomOp*) { return 0; };
  create_kernel_v2 = &onnxruntime::create_kernel;
  compute_v2 = &onnxruntime::compute;
  for (const Result& result : description->outputs) {
    if (result.varies()) infer_output_shapes = &infer_outputs;
  }
  get_start_version = [](const CustomOp*) { return 1; };
  get_end_version = [](const CustomOp*) { return 1; };
}

Op::Op(Description description) : description_(std::move(description)) { ops().push_back(this); }

}  // namespace fastvid::onnxruntime
