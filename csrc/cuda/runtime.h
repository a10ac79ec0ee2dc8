// The one place where the backend meets the CUDA runtime, or the emulator that stands in for it
// where its logic is tested without a GPU (emulator.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(FASTMLP_EMULATE_CUDA)
#include "cuda/emulator.h"
#else
#include <cuda_runtime.h>

#define FASTMLP_DEVICE __device__ __forceinline__
// A parameter that every thread reads where it lies, without a copy of its own.
#define FASTMLP_PARAMETER const __grid_constant__
#define FASTMLP_SHARED(type, name, size) __shared__ type name[size]
// Bytes, as many as the launch says.
#define FASTMLP_DYNAMIC_SHARED(name) extern __shared__ __align__(16) char name[]
#endif

namespace fastmlp::cuda {

constexpr int threads = 256;  // of every block
constexpr int warp = 32;

#if defined(FASTMLP_EMULATE_CUDA)
constexpr double large_product = 1;  // so that tests are short
#else
// The operations of a product from which on the library is worth a look: some 3 microseconds of an
// H100 in float32, about the time of a launch.
constexpr double large_product = 1 << 27;
#endif

#if !defined(FASTMLP_EMULATE_CUDA)

// ---- tensor cores: the instructions of PTX, one each

// The tf32 number nearest to x; of two equally near ones that which is larger in size, since the
// architectures here have no other instruction.
__device__ __forceinline__ std::uint32_t to_tf32(float x) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// Two bfloat16 numbers in a word, the first in its lower half; of two equally near ones the even.
__device__ __forceinline__ std::uint32_t to_bfloat16(float first, float second) {
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
}

// sum (16, 8) += a (16, 8 words) b (8 words, 8), spread over the lanes of a warp; all take part.
__device__ __forceinline__ void mma_tf32(float (&sum)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bfloat16(float (&sum)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- launches, memory and graphs

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // it is reported here, and not by the next launch again
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

using Stream = cudaStream_t;

template <class... Parameters, class... Arguments>
void launch_with_shared(std::int64_t bytes, void (*kernel)(Parameters...), dim3 blocks,
                        Stream stream, const Arguments&... arguments) {
  kernel<<<blocks, threads, std::size_t(bytes), stream>>>(arguments...);
  check(cudaGetLastError(), "launch");
}
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, Stream stream,
            const Arguments&... arguments) {
  launch_with_shared(0, kernel, blocks, stream, arguments...);
}

// Of the current GPU.
inline int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "the current GPU");
  check(cudaDeviceGetAttribute(&value, which, device), "what the current GPU has");
  return value;
}
inline int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }

// How many bytes of shared memory a kernel may be launched with, beside what it names itself; has
// them allowed, as more than 48 KB must be.
template <class... Parameters>
std::int64_t most_dynamic_shared(void (*kernel)(Parameters...)) {
  cudaFuncAttributes its;
  check(cudaFuncGetAttributes(&its, kernel), "what a kernel needs");
  const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - int(its.sharedSizeBytes);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
        "shared memory");
  return most;
}

inline void read(void* host, const void* device, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream), "copy to the host");
  check(cudaStreamSynchronize(stream), "copy to the host");
}

// Bytes that lie on the device for good.
class DeviceCopy {
 public:
  DeviceCopy(const void* host, std::size_t bytes) {
    check(cudaMalloc(&data_, bytes), "memory for a program");
    const cudaError_t status = cudaMemcpy(data_, host, bytes, cudaMemcpyHostToDevice);
    if (status != cudaSuccess) cudaFree(data_);
    check(status, "copy of a program");
  }
  ~DeviceCopy() { cudaFree(data_); }
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;
  const void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// Memory on the device for what passes from one kernel to the next.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : bytes_(bytes) {
    check(cudaMalloc(&data_, bytes), "memory of a program's own");
  }
  ~Scratch() { cudaFree(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  const std::size_t bytes_;
};

// Moments in the course of a stream.
class Moments {
 public:
  explicit Moments(Stream stream) : stream_(stream) {}
  Moments(const Moments&) = delete;
  Moments& operator=(const Moments&) = delete;
  ~Moments() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  // Behind all that the stream has been given.
  void mark() {
    cudaEvent_t event;
    check(cudaEventCreate(&event), "an event");
    events_.push_back(event);
    check(cudaEventRecord(event, stream_), "an event");
  }

  // From each moment to the next, once the last one has come.
  std::vector<float> seconds() const {
    check(cudaEventSynchronize(events_.back()), "an event");
    std::vector<float> found(events_.size() - 1);
    for (std::size_t i = 0; i < found.size(); ++i) {
      check(cudaEventElapsedTime(&found[i], events_[i], events_[i + 1]), "an event");
      found[i] /= 1e3f;
    }
    return found;
  }

 private:
  const Stream stream_;
  std::vector<cudaEvent_t> events_;
};

// A sequence of launches, captured once and replayed.
class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (instance_) cudaGraphExecDestroy(instance_);
  }

  // enqueue(stream) makes the launches. They are captured on a stream of their own, since the
  // caller's may be the default one, which cannot be captured.
  template <class F>
  void capture(F&& enqueue) {
    Stream stream;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    cudaGraph_t graph = nullptr;
    cudaError_t status = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (status == cudaSuccess) {
      try {
        enqueue(stream);
      } catch (...) {
        cudaStreamEndCapture(stream, &graph);
        if (graph) cudaGraphDestroy(graph);
        cudaStreamDestroy(stream);
        throw;
      }
      status = cudaStreamEndCapture(stream, &graph);
    }
    cudaStreamDestroy(stream);
    check(status, "capture of a graph");
    if (instance_) cudaGraphExecDestroy(std::exchange(instance_, nullptr));
    status = cudaGraphInstantiate(&instance_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "a graph");
  }
  explicit operator bool() const { return instance_; }
  void replay(Stream stream) { check(cudaGraphLaunch(instance_, stream), "launch of a graph"); }

 private:
  cudaGraphExec_t instance_ = nullptr;
};

#endif

// The seconds that a stream takes for what enqueue() gives it: the least of a few times, once it is
// warm.
template <class F>
float seconds_of(Stream stream, F&& enqueue) {
  constexpr int repeats = 5;
  enqueue();
  Moments moments(stream);
  moments.mark();
  for (int i = 0; i < repeats; ++i) {
    enqueue();
    moments.mark();
  }
  const std::vector<float> seconds = moments.seconds();
  return *std::min_element(seconds.begin(), seconds.end());
}

}  // namespace fastmlp::cuda
