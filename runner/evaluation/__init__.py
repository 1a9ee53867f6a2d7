"""Run detectors on images and measure how well they detect: labelled images, detections, accuracy."""
