/* Loads a servable version folder from C, as a C++ server does, asks it one question and prints the answer.
 *
 *   load_check FOLDER [-l LIBRARY.so]... [INPUT=VALUE | INPUT=@FILE]...
 *
 * Inputs and outputs are read from FOLDER/assets.extra/signature.txt, lines of
 *   input|output NAME TENSOR DTYPE DIMENSION...      (-1 is any size)
 * Inputs that are not given are "" or 0; a free dimension after the batch has size 0, or 1 when a value is given.
 * An input of numbers takes a whole row from a FILE of them as they lie in memory, such as a query's vector; one dimension of it may be free.
 * Exit code 0 when the model answered, 1 when TensorFlow refused (its message is on stderr), 2 for a wrong call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <tensorflow/c/c_api.h>
#include <tensorflow/c/tf_tstring.h>

#define MAX_TENSORS 64
#define MAX_RANK 8
#define SHOWN 10

typedef struct {
  char name[256];
  char operation[512];
  int output;
  TF_DataType dtype;
  int rank;
  int64_t dims[MAX_RANK];
} Port;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void stop(int code, const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(code);
}

static void stop_unless_ok(const TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) stop(1, what, TF_Message(status));
}

static TF_DataType dtype_of(const char *name) {
  if (!strcmp(name, "string")) return TF_STRING;
  if (!strcmp(name, "float")) return TF_FLOAT;
  if (!strcmp(name, "int32")) return TF_INT32;
  if (!strcmp(name, "int64")) return TF_INT64;
  if (!strcmp(name, "bool")) return TF_BOOL;
  stop(2, "signature.txt: unknown type", name);
  return TF_STRING;
}

static int read_signature(const char *folder, Port *inputs, int *input_count, Port *outputs, int *output_count) {
  char path[4096], line[4096];
  snprintf(path, sizeof path, "%s/assets.extra/signature.txt", folder);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  while (fgets(line, sizeof line, file)) {
    Port port = {0};
    char *side = strtok(line, " \n"), *name = strtok(NULL, " \n"), *tensor = strtok(NULL, " \n"), *dtype = strtok(NULL, " \n");
    char *colon = tensor ? strrchr(tensor, ':') : NULL;
    if (!dtype || !colon) stop(2, path, "not a signature line");
    *colon = '\0';
    snprintf(port.name, sizeof port.name, "%s", name);
    snprintf(port.operation, sizeof port.operation, "%s", tensor);
    port.output = atoi(colon + 1);
    port.dtype = dtype_of(dtype);
    for (char *size; port.rank < MAX_RANK && (size = strtok(NULL, " \n"));) port.dims[port.rank++] = atoll(size);
    int is_input = !strcmp(side, "input");
    int *count = is_input ? input_count : output_count;
    if (*count == MAX_TENSORS) stop(2, path, "too many tensors");
    (is_input ? inputs : outputs)[(*count)++] = port;
  }
  fclose(file);
  return 1;
}

/* A batch of one: `value` in its first place, the rest empty. */
static TF_Tensor *make_input(const Port *port, const char *value) {
  int64_t dims[MAX_RANK], count = 1;
  for (int i = 0; i < port->rank; i++) {
    dims[i] = port->dims[i] >= 0 ? port->dims[i] : (i == 0 || value ? 1 : 0);
    count *= dims[i];
  }
  size_t size = TF_DataTypeSize(port->dtype);
  if (port->dtype == TF_STRING) size = sizeof(TF_TString);
  TF_Tensor *tensor = TF_AllocateTensor(port->dtype, dims, port->rank, size * count);
  void *data = TF_TensorData(tensor);
  if (data) memset(data, 0, size * (size_t)count);
  if (port->dtype == TF_STRING)
    for (int64_t i = 0; i < count; i++) TF_StringInit((TF_TString *)data + i);
  if (!value || !count) return tensor;
  switch (port->dtype) {
    case TF_STRING: TF_StringCopy(data, value, strlen(value)); break;
    case TF_FLOAT: *(float *)data = strtof(value, NULL); break;
    case TF_INT32: *(int32_t *)data = atoi(value); break;
    case TF_INT64: *(int64_t *)data = atoll(value); break;
    default: *(unsigned char *)data = atoi(value) != 0;
  }
  return tensor;
}

/* A batch of one: the row of numbers in a file, which says how large the free dimension is. */
static TF_Tensor *read_input(const Port *port, const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) stop(2, path, "cannot be read");
  int64_t dims[MAX_RANK], known = 1, values = ftell(file) / (int64_t)TF_DataTypeSize(port->dtype);
  int open = 0;
  for (int i = 0; i < port->rank; i++) {
    dims[i] = i == 0 ? 1 : port->dims[i];
    if (dims[i] >= 0) {
      known *= dims[i];
    } else {
      if (open) stop(2, port->name, "has more than one free dimension");
      open = i;
    }
  }
  if (open) dims[open] = known ? values / known : 0;
  TF_Tensor *tensor = TF_AllocateTensor(port->dtype, dims, port->rank, TF_DataTypeSize(port->dtype) * known * (open ? dims[open] : 1));
  rewind(file);
  if (fread(TF_TensorData(tensor), 1, TF_TensorByteSize(tensor), file) != TF_TensorByteSize(tensor) || fgetc(file) != EOF)
    stop(2, path, "not as many numbers as the input takes");
  fclose(file);
  return tensor;
}

static void print_output(const Port *port, TF_Tensor *tensor) {
  int64_t count = TF_TensorElementCount(tensor);
  void *data = TF_TensorData(tensor);
  printf("%s:", port->name);
  for (int64_t i = 0; i < count && i < SHOWN; i++) {
    if (port->dtype == TF_STRING) {
      TF_TString *text = (TF_TString *)data + i;
      printf(" %.*s", (int)TF_StringGetSize(text), TF_StringGetDataPointer(text));
    } else if (port->dtype == TF_FLOAT) {
      printf(" %.6g", ((float *)data)[i]);
    } else if (port->dtype == TF_INT32) {
      printf(" %d", ((int32_t *)data)[i]);
    }
  }
  printf("\n");
}

static TF_Output find_port(TF_Graph *graph, const Port *port) {
  TF_Output found = {TF_GraphOperationByName(graph, port->operation), port->output};
  if (!found.oper) stop(1, port->operation, "not in the graph; signature.txt belongs to another model");
  return found;
}

static const char *given_value(const char *name, int count, char **arguments) {
  size_t length = strlen(name);
  for (int i = 2; i < count; i++)
    if (!strncmp(arguments[i], name, length) && arguments[i][length] == '=') return arguments[i] + length + 1;
  return NULL;
}

/* Megabytes of this process in memory; 0 where the system does not say. */
static double resident_mb(void) {
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file) return 0;
  if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1048576.0);
}

int main(int count, char **arguments) {
  static Port inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  int input_count = 0, output_count = 0;
  if (count < 2) stop(2, "usage", "load_check FOLDER [-l LIBRARY.so]... [INPUT=VALUE | INPUT=@FILE]...");
  if (!read_signature(arguments[1], inputs, &input_count, outputs, &output_count))
    stop(2, arguments[1], "no assets.extra/signature.txt; not a servable version folder");

  TF_Status *status = TF_NewStatus();
  for (int i = 2; i < count; i++) {
    if (strcmp(arguments[i], "-l")) continue;
    if (++i == count) stop(2, "-l", "needs a library");
    TF_LoadLibrary(arguments[i], status);
    stop_unless_ok(status, arguments[i]);
  }

  const char *tags[] = {"serve"};
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  double start = now(), libraries_mb = resident_mb();
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  stop_unless_ok(status, "load");
  printf("tensorflow: %s\nload_seconds: %.3f\n", TF_Version(), now() - start);
  double loaded_mb = resident_mb();

  TF_Output fed[MAX_TENSORS], fetched[MAX_TENSORS];
  TF_Tensor *values[MAX_TENSORS], *results[MAX_TENSORS] = {0};
  for (int i = 0; i < input_count; i++) {
    fed[i] = find_port(graph, &inputs[i]);
    const char *value = given_value(inputs[i].name, count, arguments);
    int from_file = value && *value == '@' && inputs[i].dtype != TF_STRING;
    values[i] = from_file ? read_input(&inputs[i], value + 1) : make_input(&inputs[i], value);
  }
  for (int i = 0; i < output_count; i++) fetched[i] = find_port(graph, &outputs[i]);
  start = now();
  TF_SessionRun(session, NULL, fed, values, input_count, fetched, results, output_count, NULL, 0, NULL, status);
  stop_unless_ok(status, "query");
  printf("query_ms: %.3f\n", 1000 * (now() - start));
  printf("resident_mb: %.0f of libraries, %.0f more after loading, %.0f more after the query\n", libraries_mb, loaded_mb - libraries_mb,
         resident_mb() - loaded_mb);
  for (int i = 0; i < output_count; i++) print_output(&outputs[i], results[i]);

  for (int i = 0; i < input_count; i++) TF_DeleteTensor(values[i]);
  for (int i = 0; i < output_count; i++) TF_DeleteTensor(results[i]);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
