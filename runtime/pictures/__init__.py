"""Reads and writes picture files of every common kind, a band of rows at a time.

    a file ──► reading ──► rows, float32 in [0, 1] ──► (the network) ──► rows of the answer ──► writing ──► a file
                  └─ metadata: colour profile, resolution, texts ──────────────────────────────────┘

runtime/picture_work.py does so for requests, runtime/pixels.py for small pictures as a whole.

libvips does the decoding and the encoding, and reads and writes by rows, so that memory is bounded by bands and not
by the picture. PNG, JPEG and TIFF are read so as long as they are not interlaced, progressive or turned by their EXIF
orientation; WebP, GIF, AVIF and BMP are decoded whole. PNG, JPEG and TIFF are written so; WebP, of at most 16,383
pixels a side, is encoded whole.
"""
