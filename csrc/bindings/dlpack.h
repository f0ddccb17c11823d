// The parts of DLPack that arrays are exchanged by, written out so that building needs no dlpack.h.
// Layouts: https://github.com/dmlc/dlpack, version 1.3; what is here never changed since 1.0.
#pragma once

#include <cstdint>

namespace fastvid::python::dlpack {

struct Version {
  uint32_t major, minor;
};

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4 };

struct Array {
  void* data;
  int32_t device_type, device_id;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;  // in elements; null where C-contiguous
  uint64_t byte_offset;
};

// What a capsule named "dltensor" holds.
struct Managed {
  Array array;
  void* context;
  void (*deleter)(Managed*);
};

constexpr uint64_t kReadOnly = 1;
constexpr uint32_t kMajor = 1;

// What a capsule named "dltensor_versioned" holds.
struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Array array;
};

// What the capsule `__dlpack_c_exchange_api__` of a type holds: the exchange without Python calls.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  void* allocator;
  void* managed_from_object;
  void* managed_to_object;
  int (*array_from_object)(void* object, Array* out);  // may be null; borrows
  int (*current_stream)(int32_t device_type, int32_t device_id, void** out);
};

}  // namespace fastvid::python::dlpack
