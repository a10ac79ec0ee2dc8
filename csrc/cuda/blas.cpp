// Opens cuBLASLt and asks it. Nothing of CUDA is needed to compile this: the few declarations of
// cublasLt.h that it takes are here, and they are the same in versions 11 to 13.
#include "cuda/blas.h"

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "cuda/backend.h"
#include "cuda/machine.h"

namespace fastmlp::cuda {

std::string Gemm::text() const {
  constexpr const char* names[] = {"float32", "float64", "tf32", "bfloat16"};
  auto factor = [](std::int64_t rows, std::int64_t cols, bool transposed) {
    return std::to_string(rows) + "x" + std::to_string(cols) + (transposed ? "^T " : " ");
  };
  return std::string(names[int(arithmetic)]) + " " + factor(m, k, transpose_a) +
         factor(k, n, transpose_b) + "rows " + std::to_string(lda) + " " + std::to_string(ldb) +
         " " + std::to_string(ldout) + " at " + std::to_string(alignment);
}

namespace {

using Status = int;            // cublasStatus_t
constexpr Status success = 0;  // CUBLAS_STATUS_SUCCESS
// CUDA_R_32F, CUDA_R_64F, CUDA_R_16BF
enum Type : int { real32 = 0, real64 = 1, bfloat = 14 };
// CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32
enum Compute : int { by32 = 68, by64 = 70, by_tf32 = 77 };
// CUBLASLT_MATMUL_DESC_TRANSA and _TRANSB, and their values CUBLAS_OP_N and _T
constexpr int transpose_first = 3, transpose_second = 4, plain = 0, transposed = 1;
// CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES and _MIN_ALIGNMENT_A_BYTES; those of B, C, D follow
constexpr int most_workspace = 1, alignment_of_first = 5;

struct Algorithm {  // cublasLtMatmulAlgo_t
  std::uint64_t data[8];
};
struct Suggestion {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  std::size_t workspace;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Suggestion) == 96);

// Of an H100 NVIDIA advises this much.
constexpr std::uint64_t workspace_limit = 32 << 20;
constexpr int most_products = 3;

struct Library {
  std::string version, card;
  void* handle = nullptr;  // cublasLtHandle_t, of the device that was current
  std::size_t (*get_version)();
  Status (*create)(void** handle);
  Status (*create_product)(void** product, Compute, Type scale);
  Status (*set_product)(void* product, int attribute, const void* value, std::size_t bytes);
  Status (*destroy_product)(void*);
  Status (*create_layout)(void** layout, Type, std::uint64_t rows, std::uint64_t cols,
                          std::int64_t ld);
  Status (*destroy_layout)(void*);
  Status (*create_wishes)(void** wishes);
  Status (*set_wishes)(void* wishes, int attribute, const void* value, std::size_t bytes);
  Status (*destroy_wishes)(void*);
  Status (*suggest)(void* handle, void* product, void* a, void* b, void* c, void* d, void* wishes,
                    int most, Suggestion*, int* count);
  Status (*multiply)(void* handle, void* product, const void* alpha, const void* a, void* of_a,
                     const void* b, void* of_b, const void* beta, const void* c, void* of_c,
                     void* d, void* of_d, const Algorithm*, void* workspace, std::size_t bytes,
                     void* stream);
};

std::string version_text(std::size_t version) {
  return "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
         "." + std::to_string(version % 100);
}

// It stays open for good: what it has on the GPU cannot be given back while a program ends.
std::shared_ptr<const Library> open(const std::string& name) {
  void* const file = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!file) return nullptr;
  auto library = std::make_shared<Library>();
  bool complete = true;
  auto find = [&](auto& function, const char* symbol) {
    void* const address = dlsym(file, symbol);
    function = reinterpret_cast<std::decay_t<decltype(function)>>(address);
    complete &= address != nullptr;
  };
  find(library->get_version, "cublasLtGetVersion");
  find(library->create, "cublasLtCreate");
  find(library->create_product, "cublasLtMatmulDescCreate");
  find(library->set_product, "cublasLtMatmulDescSetAttribute");
  find(library->destroy_product, "cublasLtMatmulDescDestroy");
  find(library->create_layout, "cublasLtMatrixLayoutCreate");
  find(library->destroy_layout, "cublasLtMatrixLayoutDestroy");
  find(library->create_wishes, "cublasLtMatmulPreferenceCreate");
  find(library->set_wishes, "cublasLtMatmulPreferenceSetAttribute");
  find(library->destroy_wishes, "cublasLtMatmulPreferenceDestroy");
  find(library->suggest, "cublasLtMatmulAlgoGetHeuristic");
  find(library->multiply, "cublasLtMatmul");
  if (!complete || library->create(&library->handle) != success) return nullptr;
  library->version = version_text(library->get_version());
  library->card = device_name();
  return library;
}

using Object = std::unique_ptr<void, Status (*)(void*)>;

// A product as the library has it. It reads matrices by columns, so a row-major one is its
// transpose, and out' = b' a': the operands change places.
class Problem {
 public:
  Problem(std::shared_ptr<const Library> library, const Gemm& gemm)
      : library_(std::move(library)), gemm_(gemm) {
    const bool wide = gemm.arithmetic == Arithmetic::float64;
    const Type result = wide ? real64 : real32;
    const Type factor = gemm.arithmetic == Arithmetic::bfloat16 ? bfloat : result;
    const Compute compute = wide ? by64 : gemm.arithmetic == Arithmetic::tf32 ? by_tf32 : by32;
    void* made = nullptr;
    if (library_->create_product(&made, compute, result) == success) product_.reset(made);
    auto layout = [&](Object& object, Type type, std::int64_t rows, std::int64_t cols,
                      std::int64_t ld) {
      void* made = nullptr;
      if (library_->create_layout(&made, type, std::uint64_t(rows), std::uint64_t(cols), ld) ==
          success)
        object.reset(made);
    };
    layout(first_, factor, gemm.transpose_b ? gemm.k : gemm.n, gemm.transpose_b ? gemm.n : gemm.k,
           gemm.ldb);
    layout(second_, factor, gemm.transpose_a ? gemm.m : gemm.k, gemm.transpose_a ? gemm.k : gemm.m,
           gemm.lda);
    layout(out_, result, gemm.n, gemm.m, gemm.ldout);
    complete_ = product_ && first_ && second_ && out_ &&
                transpose(transpose_first, gemm.transpose_b) &&
                transpose(transpose_second, gemm.transpose_a);
  }

  std::vector<Suggestion> suggestions() const {
    void* made = nullptr;
    if (!complete_ || library_->create_wishes(&made) != success) return {};
    const Object wishes(made, library_->destroy_wishes);
    auto wish = [&](int what, auto value) {
      return library_->set_wishes(wishes.get(), what, &value, sizeof value) == success;
    };
    bool wished = wish(most_workspace, workspace_limit);
    for (int operand = 0; operand < 4; ++operand)
      wished &= wish(alignment_of_first + operand, std::uint32_t(gemm_.alignment));
    std::vector<Suggestion> found(most_products);
    int count = 0;
    if (!wished ||
        library_->suggest(library_->handle, product_.get(), first_.get(), second_.get(), out_.get(),
                          out_.get(), wishes.get(), most_products, found.data(), &count) != success)
      return {};
    found.resize(static_cast<std::size_t>(count));
    return found;
  }

  bool run(const Suggestion& way, void* out, const void* a, const void* b, void* workspace,
           void* stream) const {
    const float one = 1, zero = 0;
    const double wide_one = 1, wide_zero = 0;
    const bool wide = gemm_.arithmetic == Arithmetic::float64;
    const void* const alpha = wide ? static_cast<const void*>(&wide_one) : &one;
    const void* const beta = wide ? static_cast<const void*>(&wide_zero) : &zero;
    return library_->multiply(library_->handle, product_.get(), alpha, b, first_.get(), a,
                              second_.get(), beta, out, out_.get(), out, out_.get(), &way.algorithm,
                              workspace, way.workspace, stream) == success;
  }

 private:
  bool transpose(int which, bool wanted) const {
    const std::int32_t value = wanted ? transposed : plain;
    return library_->set_product(product_.get(), which, &value, sizeof value) == success;
  }

  const std::shared_ptr<const Library> library_;
  const Gemm gemm_;
  Object product_{nullptr, library_->destroy_product};
  Object first_{nullptr, library_->destroy_layout}, second_{nullptr, library_->destroy_layout},
      out_{nullptr, library_->destroy_layout};
  bool complete_ = false;
};

struct Search {
  std::mutex mutex;  // for what follows
  std::vector<std::string> names;
  std::map<int, std::shared_ptr<const Library>> opened;  // by device; null: there is none
  std::map<std::pair<int, std::string>, std::vector<BlasProduct>> asked;  // by device and product
};

Search& search() {
  static Search instance;
  return instance;
}

std::shared_ptr<const Library> library() {
  Search& s = search();
  const std::lock_guard<std::mutex> lock(s.mutex);
  const int device = current_device();
  if (device < 0) return nullptr;
  const auto [place, is_new] = s.opened.try_emplace(device);
  if (is_new)
    for (const std::string& name : s.names)
      if ((place->second = open(name))) break;
  return place->second;
}

}  // namespace

void look_for_blas(std::vector<std::string> names) {
  Search& s = search();
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.names = std::move(names);
  s.opened.clear();
  s.asked.clear();
}

std::string blas_version() {
  const auto found = library();
  return found ? found->version : "";
}

std::string blas_name(const Gemm& gemm) {
  const auto found = library();
  return found ? found->card + ", " + found->version + ", " + gemm.text() : "";
}

std::vector<BlasProduct> blas_products(const Gemm& gemm) {
  const auto found = library();
  if (!found) return {};
  Search& s = search();
  const std::lock_guard<std::mutex> lock(s.mutex);
  const auto [place, is_new] = s.asked.try_emplace({current_device(), gemm.text()});
  if (is_new) {
    const auto problem = std::make_shared<const Problem>(found, gemm);
    for (const Suggestion& way : problem->suggestions())
      if (way.state == success)
        place->second.push_back(
            {way.workspace, [problem, way](void* out, const void* a, const void* b, void* workspace,
                                           void* stream) {
               return problem->run(way, out, a, b, workspace, stream);
             }});
  }
  return place->second;
}

}  // namespace fastmlp::cuda
