// The driver's side of the stand-in: libcuda.so.1, which torch looks its functions up in.
// Every function succeeds and does nothing; four also answer.

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  *flags = 0;
  *active = 1;
  return 0;
}
int cuCtxGetCurrent(void **context) {
  *context = (void *)64;
  return 0;
}
int cuDriverGetVersion(int *version) {
  *version = 13020;
  return 0;
}
int cuGetErrorString(int error, const char **text) {
  *text = "an error of the stand-in";
  return 0;
}

#define NOTHING(name)                                                                              \
  int name() { return 0; }
NOTHING(cuCtxFromGreenCtx)
NOTHING(cuCtxPopCurrent)
NOTHING(cuCtxPushCurrent)
NOTHING(cuCtxSetCurrent)
NOTHING(cuDeviceGet)
NOTHING(cuDeviceGetAttribute)
NOTHING(cuDeviceGetCount)
NOTHING(cuDeviceGetDevResource)
NOTHING(cuDeviceGetUuid)
NOTHING(cuDevicePrimaryCtxRetain)
NOTHING(cuFuncGetAttribute)
NOTHING(cuFuncSetAttribute)
NOTHING(cuFuncSetCacheConfig)
NOTHING(cuGetErrorName)
NOTHING(cuInit)
NOTHING(cuKernelGetAttribute)
NOTHING(cuLaunchCooperativeKernel)
NOTHING(cuLaunchKernel)
NOTHING(cuLinkAddData_v2)
NOTHING(cuLinkComplete)
NOTHING(cuLinkCreate_v2)
NOTHING(cuMemAddressFree)
NOTHING(cuMemAddressReserve)
NOTHING(cuMemCreate)
NOTHING(cuMemExportToShareableHandle)
NOTHING(cuMemGetAddressRange)
NOTHING(cuMemGetAddressRange_v2)
NOTHING(cuMemGetAllocationGranularity)
NOTHING(cuMemGetAllocationPropertiesFromHandle)
NOTHING(cuMemImportFromShareableHandle)
NOTHING(cuMemMap)
NOTHING(cuMemRelease)
NOTHING(cuMemRetainAllocationHandle)
NOTHING(cuMemSetAccess)
NOTHING(cuMemUnmap)
NOTHING(cuMemsetD32Async)
NOTHING(cuModuleGetFunction)
NOTHING(cuModuleLoad)
NOTHING(cuModuleLoadData)
NOTHING(cuModuleLoadDataEx)
NOTHING(cuModuleUnload)
NOTHING(cuMulticastAddDevice)
NOTHING(cuMulticastBindMem)
NOTHING(cuMulticastCreate)
NOTHING(cuMulticastUnbind)
NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOTHING(cuPointerGetAttribute)
NOTHING(cuStreamGetCtx)
NOTHING(cuStreamWriteValue32)
NOTHING(cuTensorMapEncodeTiled)
