"""What is around the pixels of an image file: read here, and taken away before a decoder of others sees it.

A decoder gets a file with nothing but what decides its first picture. Comments, profiles, thumbnails, further pictures
and whatever else a file may hold can then neither fill memory nor take time, and the size is known before anything is
decoded.
"""
