"""Reads and writes picture files of the common formats, a band of rows at a time.

    a file ──► reading ──► rows, float32 in [0, 1] ──► (the network) ──► rows of the answer ──► writing ──► a file
                  └─ metadata: colour profile, resolution, texts ──────────────────────────────────┘

runtime/picture_work.py calls it for requests, runtime/pixels.py for small pictures as a whole.

libvips decodes and encodes (Pillow decodes BMP). To bound the memory by the size of a band, files are streamed by rows:
PNG, JPEG and TIFF are read by rows unless they are interlaced, progressive or rotated by EXIF, and written by rows.
WebP, GIF, AVIF and BMP are decoded as a whole, and WebP is encoded as a whole (its sides have at most 16,383 pixels).
"""
