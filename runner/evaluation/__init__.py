"""How well a detector detects: labelled pictures, detections, accuracy."""
