# rows through a 512-byte buffer, as C stdio and SD-card libraries write them
import os
import random
import sys
import time

fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
b = b""
t = time.time()
while time.time() - t < float(sys.argv[2]):
    x = [random.gauss(0, 1) for _ in range(6)]
    b += (",".join("%.4f" % v for v in x) + "," + str(max(range(3), key=lambda i: x[i])) + "\n").encode()
    time.sleep(0.01)
    while len(b) >= 512:
        os.write(fd, b[:512])
        b = b[512:]
