// A file system for measurements and tests: s3:// is the local disk, but slow.
// SPDX-License-Identifier: Apache-2.0
//
// `s3://tmp/a` is the file /tmp/a. Every read, look-up and listing waits as long as
// SetDelay says, like a request to an object store; opening a file does not, and many
// requests may wait at the same time. TensorFlow registers no file system for s3://, and
// etils.epath hands such paths to TensorFlow, so all of a program's files can be on it.
// See vit_scaling/commands/benchmarks/delayed_files.py, which compiles and loads it.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tensorflow/c/experimental/filesystem/filesystem_interface.h"
#include "tensorflow/c/tf_file_statistics.h"
#include "tensorflow/c/tf_status.h"

namespace {

constexpr char kScheme[] = "s3";
constexpr char kPrefix[] = "s3://";
constexpr int kNamesPerRequest = 1000;  // As in the listings of S3 and GCS.

std::atomic<int64_t> delay_microseconds{0};
std::atomic<int64_t> requests{0};

// How much there is now, and the most there was at one moment.
struct Gauge {
  std::atomic<int64_t> now{0};
  std::atomic<int64_t> max{0};

  void Add(int64_t amount) {
    const int64_t sum = now += amount;
    int64_t seen = max;
    while (sum > seen && !max.compare_exchange_weak(seen, sum)) {
    }
  }
};

Gauge requests_in_flight;
Gauge bytes_in_flight;

void Wait(int count = 1) {
  requests += count;
  requests_in_flight.Add(1);
  std::this_thread::sleep_for(std::chrono::microseconds(count * delay_microseconds));
  requests_in_flight.Add(-1);
}

std::string LocalPath(const char* path) {
  const std::string text(path);
  return text.rfind(kPrefix, 0) == 0 ? "/" + text.substr(strlen(kPrefix)) : text;
}

void SetStatus(TF_Status* status, bool ok, const char* path) {
  if (ok) {
    TF_SetStatus(status, TF_OK, "");
  } else {
    TF_SetStatusFromIOError(status, errno, path);
  }
}

int ReturnNames(const std::vector<std::string>& names, char*** entries,
                TF_Status* status) {
  *entries = static_cast<char**>(calloc(names.size() + 1, sizeof(char*)));
  for (size_t i = 0; i < names.size(); i++) (*entries)[i] = strdup(names[i].c_str());
  TF_SetStatus(status, TF_OK, "");
  return names.size();
}

// Files opened for reading: `plugin_file` is the descriptor.

int Descriptor(const TF_RandomAccessFile* file) {
  return static_cast<int>(reinterpret_cast<intptr_t>(file->plugin_file));
}

void CloseRandomAccessFile(TF_RandomAccessFile* file) { close(Descriptor(file)); }

int64_t Read(const TF_RandomAccessFile* file, uint64_t offset, size_t n, char* buffer,
             TF_Status* status) {
  bytes_in_flight.Add(n);
  Wait();
  size_t done = 0;
  ssize_t part = 1;
  while (done < n && part > 0) {
    part = pread(Descriptor(file), buffer + done, n - done, offset + done);
    if (part > 0) done += part;
  }
  bytes_in_flight.Add(-static_cast<int64_t>(n));
  SetStatus(status, part >= 0, "read");
  if (part == 0 && done < n) TF_SetStatus(status, TF_OUT_OF_RANGE, "end of file");
  return part < 0 ? -1 : done;
}

void NewRandomAccessFile(const TF_Filesystem*, const char* path,
                         TF_RandomAccessFile* file, TF_Status* status) {
  const int descriptor = open(LocalPath(path).c_str(), O_RDONLY | O_CLOEXEC);
  file->plugin_file = reinterpret_cast<void*>(static_cast<intptr_t>(descriptor));
  SetStatus(status, descriptor >= 0, path);
}

// Files opened for writing: `plugin_file` is a FILE*.

FILE* Stream(const TF_WritableFile* file) {
  return static_cast<FILE*>(file->plugin_file);
}

void CloseWritableFile(const TF_WritableFile* file, TF_Status* status) {
  // TensorFlow closes a buffered file twice, the second time on destruction.
  const bool ok = Stream(file) == nullptr || fclose(Stream(file)) == 0;
  const_cast<TF_WritableFile*>(file)->plugin_file = nullptr;
  SetStatus(status, ok, "close");
}

void CleanUpWritableFile(TF_WritableFile* file) {
  if (file->plugin_file) fclose(Stream(file));
}

void Append(const TF_WritableFile* file, const char* buffer, size_t n,
            TF_Status* status) {
  SetStatus(status, fwrite(buffer, 1, n, Stream(file)) == n, "write");
}

int64_t Tell(const TF_WritableFile* file, TF_Status* status) {
  const int64_t position = ftell(Stream(file));
  SetStatus(status, position >= 0, "tell");
  return position;
}

void Flush(const TF_WritableFile* file, TF_Status* status) {
  SetStatus(status, fflush(Stream(file)) == 0, "flush");
}

void OpenForWriting(const char* path, const char* mode, TF_WritableFile* file,
                    TF_Status* status) {
  Wait();
  file->plugin_file = fopen(LocalPath(path).c_str(), mode);
  SetStatus(status, file->plugin_file != nullptr, path);
}

void NewWritableFile(const TF_Filesystem*, const char* path, TF_WritableFile* file,
                     TF_Status* status) {
  OpenForWriting(path, "w", file, status);
}

void NewAppendableFile(const TF_Filesystem*, const char* path, TF_WritableFile* file,
                       TF_Status* status) {
  OpenForWriting(path, "a", file, status);
}

// Names.

void Stat(const TF_Filesystem*, const char* path, TF_FileStatistics* statistics,
          TF_Status* status) {
  Wait();
  struct stat found;
  const bool ok = stat(LocalPath(path).c_str(), &found) == 0;
  if (ok) {
    statistics->length = found.st_size;
    statistics->mtime_nsec = found.st_mtim.tv_sec * 1000000000LL + found.st_mtim.tv_nsec;
    statistics->is_directory = S_ISDIR(found.st_mode);
  }
  SetStatus(status, ok, path);
}

void PathExists(const TF_Filesystem*, const char* path, TF_Status* status) {
  Wait();
  SetStatus(status, access(LocalPath(path).c_str(), F_OK) == 0, path);
}

void CreateDir(const TF_Filesystem*, const char* path, TF_Status* status) {
  Wait();
  SetStatus(status, mkdir(LocalPath(path).c_str(), 0755) == 0, path);
}

void DeleteFile(const TF_Filesystem*, const char* path, TF_Status* status) {
  Wait();
  SetStatus(status, unlink(LocalPath(path).c_str()) == 0, path);
}

void DeleteDir(const TF_Filesystem*, const char* path, TF_Status* status) {
  Wait();
  SetStatus(status, rmdir(LocalPath(path).c_str()) == 0, path);
}

void RenameFile(const TF_Filesystem*, const char* source, const char* target,
                TF_Status* status) {
  Wait();
  const bool ok = rename(LocalPath(source).c_str(), LocalPath(target).c_str()) == 0;
  SetStatus(status, ok, source);
}

int GetChildren(const TF_Filesystem*, const char* path, char*** entries,
                TF_Status* status) {
  DIR* folder = opendir(LocalPath(path).c_str());
  if (folder == nullptr) {
    Wait();
    SetStatus(status, false, path);
    return -1;
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder)) {
    const std::string name(entry->d_name);
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(folder);
  Wait(1 + names.size() / kNamesPerRequest);
  return ReturnNames(names, entries, status);
}

int GetMatchingPaths(const TF_Filesystem*, const char* pattern, char*** entries,
                     TF_Status* status) {
  glob_t found;
  std::vector<std::string> names;
  if (glob(LocalPath(pattern).c_str(), GLOB_PERIOD, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; i++) {
      const std::string path(found.gl_pathv[i]);
      const std::string name = path.substr(path.rfind('/') + 1);
      if (name != "." && name != "..") names.push_back(kPrefix + path.substr(1));
    }
  }
  globfree(&found);
  Wait(1 + names.size() / kNamesPerRequest);
  return ReturnNames(names, entries, status);
}

char* TranslateName(const TF_Filesystem*, const char* uri) { return strdup(uri); }

void Init(TF_Filesystem*, TF_Status* status) { TF_SetStatus(status, TF_OK, ""); }

void CleanUp(TF_Filesystem*) {}

template <typename Operations>
Operations* New() {
  return static_cast<Operations*>(calloc(1, sizeof(Operations)));
}

}  // namespace

extern "C" {

void SetDelay(double milliseconds) { delay_microseconds = milliseconds * 1000; }

int64_t TakeRequests() { return requests.exchange(0); }

int64_t TakeMaxRequestsInFlight() { return requests_in_flight.max.exchange(0); }

int64_t TakeMaxBytesInFlight() { return bytes_in_flight.max.exchange(0); }

void TF_InitPlugin(TF_FilesystemPluginInfo* info) {
  info->plugin_memory_allocate = malloc;
  info->plugin_memory_free = free;
  info->num_schemes = 1;
  TF_FilesystemPluginOps* ops = info->ops = New<TF_FilesystemPluginOps>();
  TF_SetFilesystemVersionMetadata(ops);
  ops->scheme = strdup(kScheme);
  auto* reading = ops->random_access_file_ops = New<TF_RandomAccessFileOps>();
  reading->cleanup = CloseRandomAccessFile;
  reading->read = Read;
  auto* writing = ops->writable_file_ops = New<TF_WritableFileOps>();
  writing->cleanup = CleanUpWritableFile;
  writing->append = Append;
  writing->tell = Tell;
  writing->flush = Flush;
  writing->sync = Flush;
  writing->close = CloseWritableFile;
  auto* files = ops->filesystem_ops = New<TF_FilesystemOps>();
  files->init = Init;
  files->cleanup = CleanUp;
  files->new_random_access_file = NewRandomAccessFile;
  files->new_writable_file = NewWritableFile;
  files->new_appendable_file = NewAppendableFile;
  files->create_dir = CreateDir;
  files->delete_file = DeleteFile;
  files->delete_dir = DeleteDir;
  files->rename_file = RenameFile;
  files->path_exists = PathExists;
  files->stat = Stat;
  files->get_children = GetChildren;
  files->get_matching_paths = GetMatchingPaths;
  files->translate_name = TranslateName;
}

}  // extern "C"
