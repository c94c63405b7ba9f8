"""Picture files of every common kind: their rows in, as numbers, and the rows of the answer out, as a file.

    a file ──► reading ──► rows, float32 in [0, 1], a band at a time ──► (the network) ──► bands ──► writing ──► a file
                  └─ metadata: colour profile, resolution, texts ─────────────────────────────────────┘

libvips does the decoding and the encoding, and reads and writes by rows, so that memory is bounded by bands and not
by the picture. PNG, JPEG and TIFF are read so as long as they are not interlaced, progressive or turned by their EXIF
orientation; WebP, GIF, AVIF and BMP are decoded whole. PNG, JPEG and TIFF are written so; WebP, of at most 16,383
pixels a side, is encoded whole.
"""
